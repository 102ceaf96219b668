"""`extends` and `--set`: one document laid over another, with the places of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Loc, Locs, Path, Report, Source, SpecError, did_you_mean
from blockforge.spec.loader import Document, load_value
from blockforge.spec.model import Spec

MAX_EXTENDS = 16
_IDENTITY = ("op", "rule")
"""A mapping that names another op or rule than its base replaces it: the base's parameters are not its own."""


@dataclass(frozen=True)
class Base:
    """A document and where it came from; `name` tells documents apart in cycles."""

    name: str
    document: Document


_TOP = tuple(Spec.model_fields)

Find = Callable[[str, "Base"], Base]
"""Finds what `extends: TEXT` in a document means."""


def extend(base: Base, find: Find, seen: tuple[str, ...] = ()) -> Document:
    """The document with everything it extends merged below it. Raises SpecError on cycles and unknown bases."""
    document, report = base.document, Report(base.document.locs)
    tree = document.tree
    if not isinstance(tree, dict) or "extends" not in tree:
        return document
    chain = (*seen, base.name)
    parent_name = tree["extends"]
    if not isinstance(parent_name, str):
        report.error("extends", "extends needs a zoo name or a relative path", ("extends",))
        report.close()
    try:
        parent = find(parent_name, base)
    except (LookupError, OSError) as e:
        report.error("extends", e.args[0], ("extends",), hint=e.args[1] if len(e.args) > 1 else None)
        report.close()
    if parent.name in chain:
        loop = " -> ".join((*chain[chain.index(parent.name) :], parent.name))
        report.error("extends", f"extends goes in a circle: {loop}", ("extends",))
    elif len(chain) >= MAX_EXTENDS:
        report.error("extends", f"extends goes more than {MAX_EXTENDS} deep", ("extends",))
    report.close()
    below = extend(parent, find, chain)
    locs = Locs(dict(below.locs.table))
    report = Report(document.locs)
    patch = {k: v for k, v in tree.items() if k != "extends"}
    merged = _merge(below.tree, patch, (), locs, document.locs, report)
    report.close()
    if isinstance(merged, dict) and "name" not in patch:
        merged["name"] = below.tree.get("name") if isinstance(below.tree, dict) else None
    locs.table[()] = document.locs.table.get((), next(iter(document.locs.table.values())))
    return Document(merged, locs)


def override(document: Document, overrides: Mapping[str, Any] | list[str]) -> Document:
    """The document with values replaced: `{"stages.2.depth": 12}` or `["stages.2.depth=12"]`.

    Raises: SpecError for a path that leads nowhere, with all of them.
    """
    tree, locs = _copy(document.tree), Locs(dict(document.locs.table))
    report = Report(locs)
    for key, value, loc, value_doc in _assignments(overrides, report):
        path = _parse_path(key)
        place = _descend(tree, path, report, loc)
        if place is None:
            continue
        place[path[-1]] = _copy(value)
        _forget_below(locs, path)
        locs.table[path] = (loc, loc)
        for inner, (key_loc, value_loc) in (value_doc.locs.table if value_doc else {}).items():
            locs.table[path + inner] = (key_loc or loc, value_loc)
    report.close()
    return Document(tree, locs)


def _assignments(overrides: Mapping[str, Any] | list[str], report: Report) -> list[tuple[str, Any, Loc, Document | None]]:
    found: list[tuple[str, Any, Loc, Document | None]] = []
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            text = f"{key}={value}"
            found.append((str(key), value, Loc(Source("override", (text,)), 1, 1, len(text)), None))
        return found
    for text in overrides:
        loc = Loc(Source("--set", (text,)), 1, 1, len(text))
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            report.error("set", f"'{text}' is not path=value", loc=loc, hint="--set stages.2.depth=12")
            continue
        try:
            document = load_value(value, f"--set {key.strip()}")
        except SpecError as e:
            report.found += e.diagnostics
            continue
        found.append((key.strip(), document.tree, loc, document))
    return found


def _parse_path(text: str) -> Path:
    """`stages.2.depth`, or `stages[2].depth` -> ("stages", 2, "depth")."""
    parts = text.replace("[", ".").replace("]", "").split(".")
    return tuple(int(p) if p.isascii() and p.isdigit() and len(p) < 9 else p for p in parts)


def _descend(tree: Any, path: Path, report: Report, loc: Loc) -> Any:
    """The container that the last part of `path` is set in; mappings on the way are made."""
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        where = ".".join(map(str, path[:depth])) or "the spec"
        if isinstance(tree, list):
            if not isinstance(part, int) or part >= len(tree):
                report.error("set", f"{where} has no item '{part}'", loc=loc, hint=f"items: 0 to {len(tree) - 1}")
                return None
        elif isinstance(tree, dict):
            if part == "" or (not last and part not in tree and depth == 0 and part not in _TOP):
                report.error("set", f"there is no key '{part}'", loc=loc, hint=did_you_mean(str(part), _TOP))
                return None
            if not last and not isinstance(tree.get(part), dict | list):
                old = tree.get(part)
                tree[part] = {"op": old} if isinstance(old, str) and old != "none" else {}
        else:
            report.error("set", f"{where} holds a value, not keys", loc=loc)
            return None
        if last:
            return tree
        tree = tree[part]
    return None


def _merge(base: Any, patch: Any, path: Path, locs: Locs, patch_locs: Locs, report: Report) -> Any:
    """`patch` over `base`; mappings merge, everything else replaces; `locs` (the base's) follows."""
    if isinstance(base, dict) and isinstance(patch, dict) and _same_thing(base, patch):
        out = dict(base)
        for key, value in patch.items():
            _take_loc(locs, patch_locs, (*path, key))
            out[key] = _merge(base[key], value, (*path, key), locs, patch_locs, report) if key in base else value
            if key not in base:
                _take_below(locs, patch_locs, (*path, key))
        return out
    if isinstance(base, list) and isinstance(patch, dict) and patch and all(isinstance(k, int) for k in patch):
        items = list(base)
        for index, value in patch.items():
            at = (*path, index)
            if not 0 <= index < len(items):
                report.error("extends", f"the base has no item {index}", at, on_key=True, hint=f"0 to {len(items) - 1}")
                continue
            _take_loc(locs, patch_locs, at)
            items[index] = _merge(items[index], value, at, locs, patch_locs, report)
        return items
    _forget_below(locs, path)
    _take_below(locs, patch_locs, path)
    return patch


def _same_thing(base: dict[Any, Any], patch: dict[Any, Any]) -> bool:
    if any(isinstance(k, str) and k.startswith("$") for k in (*base, *patch)):
        return False
    return all(base.get(k) == patch[k] for k in _IDENTITY if k in patch)


def _take_loc(locs: Locs, patch_locs: Locs, path: Path) -> None:
    if path in patch_locs.table:
        locs.table[path] = patch_locs.table[path]


def _take_below(locs: Locs, patch_locs: Locs, path: Path) -> None:
    locs.table.update({p: v for p, v in patch_locs.table.items() if p[: len(path)] == path})


def _forget_below(locs: Locs, path: Path) -> None:
    for p in [p for p in locs.table if p[: len(path)] == path]:
        del locs.table[p]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(v) for v in value]
    return value
