"""Names of used files that would change what a base means."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.errors import Report
from blockforge.plugins import REGISTRIES

_OPS = "blockforge.blocks"
_NO_OPS = ("about", "define", "use", "name", "extends", "let")


def is_registered(name: str) -> bool:
    """Whether an op may have this name without any definition."""
    importlib.import_module(f"{_OPS}.registry")  # only now: the language stands below the blocks
    return REGISTRIES[_OPS].may_hold(name)


def check_shadows(base: Mapping[str, Any], patch: Mapping[str, Any], report: Report) -> None:
    """Report the registered ops that a base calls by names which the files that a patch uses give to definitions.

    Args:
        base, patch: documents, with what they use read into them; `report` has the places of the patch.
    """
    own = {*_defined(base), *(patch["define"] if isinstance(patch.get("define"), dict) else ())}
    blocks = base.get("blocks")
    called: set[str] | None = None
    for i, name in _brought(patch):
        if name in own or not is_registered(name):
            continue
        if called is None:
            called = set(_called(base, blocks if isinstance(blocks, dict) else {}))
        if name in called:
            text = f"'{name}' of this file would stand in place of the block '{name}' in what the spec extends"
            hint = f"use the file under a prefix, use: {{s: ...}}, and call {{op: s.{name}}}"
            report.error("use", text, ("use", i) if isinstance(patch.get("use"), list) else ("use",), hint=hint)
            return  # one is enough to see that a prefix is needed


def _defined(tree: Mapping[str, Any]) -> Iterator[str]:
    """The names that a document's definitions have without a prefix."""
    if isinstance(tree.get("define"), dict):
        yield from tree["define"]
    yield from (name for _, name in _brought(tree))


def _brought(tree: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """The names that used files bring without a prefix, each with the file's place in `use`."""
    for i, item in enumerate(tree["use"] if isinstance(tree.get("use"), list) else ()):
        if isinstance(item, dict) and item.get("as") is None and isinstance(item.get("define"), dict):
            yield from ((i, name) for name in item["define"] if isinstance(name, str))


def _called(value: Any, blocks: Mapping[Any, Any]) -> Iterator[str]:
    """Every text that may call an op. Of layers those are left out that name one of the spec's own blocks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _called(item, blocks)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NO_OPS:
                yield from (text for text in _called(item, blocks) if key != "layers" or text not in blocks)
