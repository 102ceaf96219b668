"""`use`: files of definitions, read into the document that names them, so that it stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blockforge.errors import Diagnostic, Locs, Path, Report, SpecError, did_you_mean
from blockforge.spec.definitions import LIBRARY_KEYS
from blockforge.spec.merge import MAX_EXTENDS, Base, Find, short_path
from blockforge.spec.yaml.loader import Document
from blockforge.spec.yaml.plain_data import plain_data

MAX_USED = 64
"""Files that one document reads, those included that they use themselves."""


def inline(base: Base, find: Find) -> Document:
    """The document with what it uses in place of the names: `use: [{define: {...}, use: [...], as: m}]`.

    Raises: SpecError for a file that cannot be read or holds anything else, a circle, and what goes beyond the bounds.
    """
    tree = base.document.tree
    if not isinstance(tree, dict) or "use" not in tree:
        return base.document
    document = _Inliner(find).inlined(base, (base.name,))
    report = Report(document.locs)
    plain_data(document.tree, report)  # as large as a text may be, for it may be written as one
    report.close()
    return document


class _Inliner:
    def __init__(self, find: Find) -> None:
        self.find, self.room = find, MAX_USED

    def inlined(self, base: Base, chain: tuple[str, ...], at: Path = ()) -> Document:
        """What stands at `at` in a document, with its `use` read. `chain`: the files on the way here."""
        tree, locs = base.document.tree, base.document.locs
        for part in at:
            tree = tree[part]
        table = {p: place for p, place in _below(locs, at) if p[:1] != ("use",)}
        if "use" in tree:
            here = (*at, "use")
            table |= {("use",): locs.table[here]} if here in locs.table else {}
            read = [self.used(base, chain, *item) for item in _items(tree["use"], here)]
            if isinstance(tree["use"], list) or _is_prefixed(tree["use"]):
                tree = {**tree, "use": [document.tree for document in read]}
            for i, document in enumerate(read):
                table |= {("use", i, *p): place for p, place in document.locs.table.items()}
        return Document(tree, Locs(table))

    def used(self, base: Base, chain: tuple[str, ...], value: Any, at: Path, prefix: str | None) -> Document:
        """One item of a `use`."""
        if isinstance(value, dict):
            return self.inlined(base, chain, at)
        table = dict(_below(base.document.locs, at))
        if not isinstance(value, str):
            return Document(value, Locs(table))  # an error, which validation will find
        other = self.read(base, chain, value, at)
        document = self.inlined(other, (*chain, other.name))
        tree = {"define": document.tree.get("define", {}), **{k: v for k, v in document.tree.items() if k == "use"}}
        table |= {p: place for p, place in document.locs.table.items() if p[:1] in (("define",), ("use",))}
        return Document({**tree, "as": prefix} if prefix is not None else tree, Locs(table))

    def read(self, base: Base, chain: tuple[str, ...], name: str, at: Path) -> Base:
        """The file that is named at `at`."""
        report = Report(base.document.locs)
        self.room -= 1
        if self.room < 0 or len(chain) > MAX_EXTENDS:
            law = f"use leads to more than {MAX_USED} files, or more than {MAX_EXTENDS} deep"
            report.error("use", law, at, hint="name the files themselves that hold what is needed")
            report.close()
        try:
            other = self.find(name, base)
        except SpecError as e:
            here = report.locs.value(at)
            beside = "a path counts from this file's folder; a name without .yaml is that of a packaged file"
            moved = [d if d.loc else Diagnostic(d.code, d.message, at, here, d.hint or beside) for d in e.diagnostics]
            raise SpecError(moved) from None
        if other.name in chain:
            loop = " -> ".join(map(short_path, (*chain[chain.index(other.name) :], other.name)))
            report.error("use", f"use goes in a circle: {loop}", at, hint="leave out one of them")
            report.close()
        _check(other)
        return other


def _items(use: Any, at: Path) -> Iterator[tuple[Any, Path, str | None]]:
    """The files of a `use` and the mappings they became: each with its place and prefix."""
    if _is_prefixed(use):
        for prefix, value in use.items():
            yield value, (*at, prefix), prefix
    elif isinstance(use, list):
        for i, value in enumerate(use):
            if _is_prefixed(value):
                yield from _items(value, (*at, i))
            else:
                yield value, (*at, i), None


def _is_prefixed(value: Any) -> bool:
    """Whether it is `{prefix: file}`; what was read has a mapping in `define`."""
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value.values())


def _below(locs: Locs, at: Path) -> Iterator[tuple[Path, Any]]:
    """The places in what stands at `at`, by their paths from there."""
    return ((p[len(at) :], place) for p, place in locs.table.items() if p[: len(at)] == at)


def _check(base: Base) -> None:
    """Refuse a file that is no file of definitions; what stands in them is checked where all of them are."""
    document = base.document
    report, name = Report(document.locs), short_path(base.name)
    if not isinstance(document.tree, dict):
        report.error("use", f"{name} is no file of definitions", hint="start with: blockforge: 1")
        report.close()
    for key in document.tree:
        if key not in LIBRARY_KEYS:
            hint = did_you_mean(str(key), LIBRARY_KEYS, what="keys here")
            report.error("use", f"a file of definitions holds no '{key}'", (key,), hint=hint, on_key=True)
    if document.tree.get("blockforge") != 1 or document.tree["blockforge"] is True:
        report.error("use", f"{name} does not say its version", ("blockforge",), hint="start with: blockforge: 1")
    report.close()
