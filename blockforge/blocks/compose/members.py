"""The ops in a list or a mapping of ops, their names, and the keys that every op has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from blockforge.blocks.compose.frame import Bound, Frame, plain
from blockforge.blocks.compose.written import Map, Seq
from blockforge.errors import OpError, Path
from blockforge.spec.fields import MAX_NAME
from blockforge.spec.schema_errors import shown
from blockforge.spec.yaml.scalars import shorten

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""Of a module: also a number, as those in a `nn.Sequential` have."""


def named(bound: Bound) -> Iterator[tuple[str, Bound]]:
    """The members of a list or a mapping of ops, each with its name: its key, or what its op is called, numbered."""
    value, frame = bound.value, bound.frame
    if isinstance(value, Map):
        for key, member in keyed(value, bound.place):
            yield key, Bound(member, frame, (*value.at, key))
        return
    if not isinstance(value, Seq):
        yield _called(value, frame), bound
        return
    counts: dict[str, int] = {}
    for i, member in enumerate(value.items):
        name = _called(member, frame)
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}_{counts[name]}", Bound(member, frame, (*value.at, i))


def keyed(members: Map, at: Path) -> Iterator[tuple[str, Any]]:
    """A mapping of members by name. Raises: OpError for a key that is no name: it is to be that of a module."""
    for key, member in members.items:
        if not (_NAME.fullmatch(key) and len(key) <= MAX_NAME):
            hint = "a name is letters, digits, _ and -"
            error = OpError(f"'{shorten(key)}' cannot be a name here", hint=hint, code="name").placed_at((*at, key))
            error.is_of_text = True
            raise error
        yield key, member


def called_by(bound: Bound) -> str:
    """What an op is called: the name of its op, `chain` for a list; `m_se` for the definition `m.se`, since it names
    a module."""
    return _called(bound.value, bound.frame)


def _called(member: Any, frame: Frame) -> str:
    if isinstance(member, Map):
        return _called(member.get("op"), frame) if "op" in member else "op"
    if isinstance(member, Seq):
        return "chain"
    if isinstance(member, str):
        return member.replace(".", "_")
    try:
        op = frame.value(member)
    except OpError:  # only the map says which op it is; where it stands it is read, and told what is wrong
        return "op"
    if isinstance(op, Bound):
        return _called(op.value, op.frame)
    return _called(op, frame) if isinstance(op, str) else "none"


def key_of_op(op: Map, key: str, frame: Frame, at: Path) -> Any:
    """What an op, written at a place, says under a key that every op has. Raises: OpError."""
    try:
        return plain(frame.value(op.get(key)))
    except OpError as e:
        raise e.placed_at((*at, key)) from None


def truth(value: Any, at: Path) -> bool:
    """What `when` says of the op at a place. Raises: OpError."""
    if not isinstance(value, bool):
        hint = "as in when: $(in != out)"
        raise OpError(f"when is true or false, not {shown(value)}", hint=hint, param="when", code="value").placed_at(at)
    return value


def width(value: Any) -> int:
    """A width that an op is asked for. Raises: OpError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65_536:
        text = f"a width is a whole number from 1 to 65536, not {shown(value)}"
        hint = "// leaves out the rest" if isinstance(value, float) else "as in dim: $(2 * in)"
        raise OpError(text, hint=hint, param="dim", code="value")
    return value
