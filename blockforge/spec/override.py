"""`--set path=value` and its equal in Python: values replaced by path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from blockforge.errors import Diagnostic, Loc, Locs, Path, Report, Source, SpecError, did_you_mean, parse_path
from blockforge.spec.merge import forget
from blockforge.spec.model import Spec
from blockforge.spec.references import lift
from blockforge.spec.values import plain
from blockforge.spec.yaml.loader import Document, load_value
from blockforge.spec.yaml.plain_data import plain_data
from blockforge.spec.yaml.scalars import shorten

MAX_PATH = 32
_EXAMPLE = "as in --set stages.2.depth=12"
_TOP = tuple(Spec.model_fields)

Overrides = Mapping[str, Any] | list[str]


class _Assignment(NamedTuple):
    key: str
    value: Any
    loc: Loc
    inner: Locs
    """Where the parts of the value stand."""


def override(document: Document, overrides: Overrides) -> Document:
    """The document with values replaced: `{"stages.2.depth": 12}` or `["stages.2.depth=12"]`.

    Raises: SpecError for paths that lead nowhere, with all of them.
    """
    tree, locs = plain_data(document.tree, Report(Locs())), Locs(dict(document.locs.table))
    report = Report(locs)
    for given in _assignments(overrides, report):
        path = parse_path(given.key)
        place = _descend(tree, path, report, given.loc)
        if place is None:
            continue
        old = place.get(path[-1]) if isinstance(place, dict) else place[path[-1]]
        forget(locs, old, path)
        place[path[-1]] = _chosen(old, given.value)
        for inner, (key_loc, value_loc) in given.inner.table.items():
            locs.table[path + inner] = (key_loc or given.loc, value_loc)
    report.close()
    return Document(tree, locs)


def _assignments(overrides: Overrides, report: Report) -> Iterator[_Assignment]:
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            text = shorten(f"{key}={value}", 200)
            loc = Loc(Source("override", (text,)), 1, 1, len(text))
            inner = Report(Locs({(): (loc, loc)}))
            value = plain_data(value, inner)
            report.found += inner.found
            yield _Assignment(str(key), value, loc, inner.locs)
        return
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        text = f"overrides are a mapping or a list of texts, not a {type(overrides).__name__}"
        report.found.append(Diagnostic("set", text, hint=_EXAMPLE))
        return
    for text in overrides:
        if not isinstance(text, str):
            report.found.append(Diagnostic("set", f"a {type(text).__name__} is not path=value", hint=_EXAMPLE))
            continue
        loc = Loc(Source("--set", (shorten(text, 200),)), 1, 1, len(text))
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            report.error("set", f"'{shorten(text)}' is not path=value", loc=loc, hint=_EXAMPLE)
            continue
        try:
            document = load_value(value, f"--set {shorten(key.strip())}")
        except SpecError as e:
            report.found += e.diagnostics
            continue
        yield _Assignment(key.strip(), document.tree, loc, document.locs)


def _descend(tree: Any, path: Path, report: Report, loc: Loc) -> Any:
    """The container that the last part of `path` is set in; mappings on the way are made.

    None, with an error, where the path leads nowhere.
    """

    def refuse(message: str, hint: str | None = None) -> None:
        report.found.append(Diagnostic("set", message, (), loc, hint))

    if len(path) > MAX_PATH:
        return refuse(f"the path has {len(path)} parts; {MAX_PATH} are allowed")
    for depth, part in enumerate(path):
        where, here = ".".join(map(str, path[:depth])), path[: depth + 1]
        if isinstance(tree, list):
            if not isinstance(part, int) or part >= len(tree):
                return refuse(f"{where} has no item '{part}'", f"its items: 0 to {len(tree) - 1}")
        elif part == "" or (depth == 0 and part not in _TOP):
            hint = did_you_mean(str(part), _TOP, "keys")
            return refuse(f"there is no key '{shorten(str(part))}' in {where or 'the spec'}", hint)
        elif any(isinstance(k, str) and k.startswith("$") for k in tree):
            values = lift(tree, Report(Locs())).values()
            return refuse(f"{where} is a hole; nothing in it can be set yet", f"first set {where} (values: {values})")
        if depth == len(path) - 1:
            return tree
        if _make_way(tree, part):
            report.locs.table[here] = (loc, loc)
        tree = tree[part]
        if isinstance(tree, str):
            at, rest = ".".join(map(str, here)), ".".join(map(str, path[depth + 1 :]))
            if tree.startswith("$("):
                return refuse(f"{at} is {tree}, which is computed", f"set {at} itself")
            return refuse(f"{at} is {tree}, which let gives", f"set let.{tree[1:]}.{rest}, or {at} itself")
    return None


def _make_way(tree: Any, part: Any) -> bool:
    """Put a mapping where a path leads on, if there is none: a block in short form keeps its op."""
    old = tree[part] if isinstance(tree, list) else tree.get(part)
    if isinstance(old, dict | list) or (isinstance(old, str) and old.startswith("$")):
        return False
    tree[part] = {"op": old} if isinstance(old, str) and old != "none" else {}
    return True


def _chosen(old: Any, value: Any) -> Any:
    """What a label stands for, where a choice among mappings is set: `stages.2.connect=sparx`."""
    if isinstance(old, dict) and "$choice" in old and isinstance(value, str):
        hole = lift(old, Report(Locs()))
        if value in hole:
            return plain(hole.options[hole.index(value)])
    return value
