"""`extends`: one document laid over another, with the places of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Diagnostic, Locs, Path, Report, SpecError, format_path
from blockforge.spec.reporting import stop_if_many
from blockforge.spec.shadows import check_shadows
from blockforge.spec.yaml.loader import Document

MAX_EXTENDS = 16
_IDENTITY = ("op", "rule")
"""A mapping that names another op or rule than its base replaces it: the base's parameters are not its."""

_IN_PLACE = (("head", "heads"), ("heads", "head"))
"""Keys of a spec, and those that stand in their place."""


@dataclass(frozen=True)
class Base:
    """A document and where it came from; `name` tells documents apart in cycles."""

    name: str
    document: Document


Find = Callable[[str, Base], Base]
"""Finds what `extends: TEXT` in a document means. Raises: SpecError."""


def extend(base: Base, find: Find, seen: tuple[str, ...] = ()) -> Document:
    """The document with everything it extends merged below it.

    Raises: SpecError for an unknown base, a circle, too long a chain, or a patch that fits nothing.
    """
    document, tree = base.document, base.document.tree
    if not isinstance(tree, dict) or "extends" not in tree:
        return document
    chain = (*seen, base.name)
    parent = _parent(base, find, chain)
    below = extend(parent, find, chain)
    patch = {k: v for k, v in tree.items() if k != "extends"}
    if not isinstance(below.tree, dict):
        return below  # an error there, which validation will find
    merger = _Merger(below.locs, document.locs)
    check_shadows(below.tree, patch, merger.report)
    merger.report.close()
    merged = merger.merge(below.tree, patch, ())
    merger.report.close()
    return Document(merged, merger.locs)


def _parent(base: Base, find: Find, chain: tuple[str, ...]) -> Base:
    report, name = Report(base.document.locs), base.document.tree["extends"]
    if not isinstance(name, str) or not name:
        report.error(
            "extends",
            "extends needs a zoo name or a relative path",
            ("extends",),
            hint="as in extends: smt_s",
        )
        report.close()
    if len(chain) >= MAX_EXTENDS:
        hint = "extend a spec nearer to the end of the chain"
        report.error("extends", f"extends goes more than {MAX_EXTENDS} specs deep", ("extends",), hint=hint)
        report.close()
    try:
        parent = find(name, base)
    except SpecError as e:
        here = report.locs.value(("extends",))
        beside = "a path counts from this file's folder; a name without .yaml is the zoo's"
        for d in e.diagnostics:  # a file that cannot be read has no place of its own: it is named here
            moved = Diagnostic(d.code, d.message, ("extends",), here, d.hint or beside)
            report.found.append(d if d.loc else moved)
        report.close()
        raise
    if parent.name in chain:
        loop = " -> ".join(map(short_path, (*chain[chain.index(parent.name) :], parent.name)))
        report.error("extends", f"extends goes in a circle: {loop}", ("extends",), hint="leave out one of them")
        report.close()
    return parent


def short_path(path: str) -> str:
    """A path as a person would write it: from the current folder, if it lies below."""
    try:
        below = os.path.relpath(path)
    except (OSError, ValueError):  # no current folder, or no such path
        return path
    return path if below.startswith(os.pardir) else below


class _Merger:
    def __init__(self, base_locs: Locs, patch_locs: Locs) -> None:
        self.locs, self.patch_locs = Locs(dict(base_locs.table)), patch_locs
        self.report = Report(patch_locs)

    def merge(self, base: Any, patch: Any, path: Path) -> Any:
        """`patch` over `base`; mappings merge, everything else replaces; `locs` (the base's) follows."""
        if isinstance(base, str) and isinstance(patch, dict) and _could_be_op(base, patch):
            base = {"op": base}
        if isinstance(base, dict) and isinstance(patch, dict) and _same_thing(base, patch):
            self._take(path)
            kept = self._not_replaced(base, patch) if path == () else base
            return {**kept, **{k: self._item(kept, k, v, (*path, k)) for k, v in patch.items()}}
        if path == ("use",) and isinstance(base, list) and isinstance(patch, list):
            return self._both(base, patch, path)
        if isinstance(base, list) and isinstance(patch, dict) and patch and not _is_hole(patch):
            return self._patched_list(base, patch, path)
        forget(self.locs, base, path)
        for below in paths(patch, path):
            self._take(below)
        return patch

    def _item(self, base: dict[Any, Any], key: Any, value: Any, path: Path) -> Any:
        return self.merge(base.get(key), value, path)

    def _not_replaced(self, base: dict[Any, Any], patch: dict[Any, Any]) -> dict[Any, Any]:
        """The base without the key in whose place one of the patch's stands."""
        gone = {old for old, new in _IN_PLACE if new in patch and old not in patch}
        for key in gone & base.keys():
            forget(self.locs, base[key], (key,))
        return {key: value for key, value in base.items() if key not in gone}

    def _patched_list(self, base: list[Any], patch: dict[Any, Any], path: Path) -> list[Any]:
        items = list(base)
        for index in sorted(patch, key=lambda i: (not _is_index(i), i if _is_index(i) else 0)):
            at = (*path, index)
            if _is_index(index) and 0 <= index < len(items):
                items[index] = self.merge(items[index], patch[index], at)
                continue
            if _is_index(index) and index == len(items):
                items.append(self.merge(None, patch[index], at))
                continue
            what = f"{format_path(path)} is a list of {len(items)}; it has no item '{index}'"
            hint = f"patch it by index, 0 to {len(items) - 1}; {len(items)} adds an item; or write the whole list"
            self.report.error("extends", what, at, on_key=True, hint=hint)
            stop_if_many(self.report)
        return items

    def _both(self, base: list[Any], patch: list[Any], path: Path) -> list[Any]:
        """The items of two lists, those of the base first; what both say stands once."""
        items = list(base)
        for i, value in enumerate(patch):
            if value in items:
                continue
            for below in paths(value, (*path, i)):
                if below in self.patch_locs.table:
                    self.locs.table[(*path, len(items), *below[2:])] = self.patch_locs.table[below]
            items.append(value)
        return items

    def _take(self, path: Path) -> None:
        if path in self.patch_locs.table:
            self.locs.table[path] = self.patch_locs.table[path]


def _is_index(key: Any) -> bool:
    return isinstance(key, int) and not isinstance(key, bool)


def _could_be_op(base: str, patch: dict[Any, Any]) -> bool:
    """Whether a text is a block in short form, which the patch gives parameters."""
    return base != "none" and not base.startswith("$") and not _is_hole(patch) and not {"rule", "body"} & patch.keys()


def _same_thing(base: dict[Any, Any], patch: dict[Any, Any]) -> bool:
    if _is_hole(base) or _is_hole(patch) or ("op" in base and "body" in patch) or ("body" in base and "op" in patch):
        return False
    return all(base.get(k, patch[k]) == patch[k] for k in _IDENTITY if k in patch)


def _is_hole(tree: dict[Any, Any]) -> bool:
    return any(isinstance(k, str) and k.startswith("$") for k in tree)


def paths(value: Any, path: Path) -> Iterator[Path]:
    """The path of `value` and of everything in it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from paths(child, (*path, key))


def forget(locs: Locs, value: Any, path: Path) -> None:
    """Drop the places of a value that is replaced."""
    for below in paths(value, path):
        locs.table.pop(below, None)
