"""What can be said of the ops in definitions that nothing calls: that there are none of their names, or no such
parameters. What depends on a map is told where a network calls them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.blocks import registry
from blockforge.blocks.compose.expand import read_by
from blockforge.blocks.compose.steps import INSIDE
from blockforge.errors import Diagnostic, Locs, OpError, did_you_mean
from blockforge.spec.calls import Call, calls
from blockforge.spec.forms import OP_KEYS
from blockforge.spec.glossary import Glossary

_OF_PLACE = "missing-key"
"""Code of what a place may still give."""


def wrong_calls(glossary: Glossary, locs: Locs) -> Iterator[Diagnostic]:
    """An error for each op in a document's own definitions that is neither defined nor a block, and for what is given
    to blocks that they cannot take."""
    for name in glossary.define:
        definition = glossary.own(name)
        for call in calls(definition.body, definition.body_path, is_op=True, surely=True):
            if glossary.find(call.name) is None:
                yield from _wrong(call, glossary, locs)


def _wrong(call: Call, glossary: Glossary, locs: Locs) -> Iterator[Diagnostic]:
    at = (*call.path, "op") if call.given else call.path
    if call.name not in registry.BLOCKS:
        hint = did_you_mean(call.name, registry.blocks(*INSIDE), what="known here", first=glossary.names())
        yield Diagnostic("unknown-op", f"there is no op named '{call.name}'", at, locs.value(at), hint)
        return
    ops, _ = read_by(registry.get(call.name))
    given = {k: v for k, v in call.given.items() if k not in OP_KEYS and k not in ops and _is_plain(v)}
    try:
        registry.make(call.name, given, *INSIDE)
    except registry.ParamsError as errors:
        for where, e in errors.each():
            path = (*call.path, *where)
            loc = locs.key(path) if e.code == "unknown-key" else locs.value(path)
            if e.code != _OF_PLACE:
                yield Diagnostic(e.code, str(e), path, loc, e.hint)
    except OpError as e:
        yield Diagnostic(e.code, str(e), at, locs.value(at), e.hint)


def _is_plain(value: Any) -> bool:
    """Whether a value is the same wherever the definition stands, and no op."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return "op" not in value and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float)
