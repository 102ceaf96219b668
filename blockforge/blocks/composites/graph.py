"""Any acyclic arrangement of ops."""

from __future__ import annotations

from typing import Any

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound, Frame, plain
from blockforge.blocks.compose.joined import Joiner
from blockforge.blocks.compose.members import keyed
from blockforge.blocks.compose.written import Map, Seq, place_in
from blockforge.blocks.registry import BLOCKS, part
from blockforge.errors import OpError, Path, did_you_mean, nearest
from blockforge.spec.schema_errors import shown

_KEYS = ("from", "join", "op", "when")
_SOURCE_KEYS = ("from", "op")


@part("graph")
class Graph(Composite):
    """Ops by name, `{from, join, op}` each: what it reads (`input`, or members before it, or `{from: a, op: ...}`), how
    these are joined (`sum`), and the op on that. The last one is the result.

    Shape: x_BHWC -> y_BHWC, what the last member gives.
    """

    of: Bound = Bound(Map((("all", Map((("from", "input"),))),)))
    """The members, in the order they run."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        if not isinstance(self.of.value, Map):
            raise OpError("of is a mapping that names the members", hint="{a: {from: input, op: ...}, ...}", param="of")
        members = _Members(build, x)
        for key, value in keyed(self.of.value, self.of.place):
            if key == "input":
                text, hint = "'input' is what the graph reads, and no name of a member", "give it another name"
                raise OpError(text, hint=hint, code="value").placed_at((*self.of.place, key))
            members.add(key, Bound(value, self.of.frame, (*self.of.place, key)), (*name, key))
        return members.result()


class _Members:
    """The members of a graph, one after the other. `known`: the value of each; None: `when` leaves it out."""

    def __init__(self, build: Builder, x: int) -> None:
        self.build, self.last, self.newest = build, x, "input"
        self.known: dict[str, int | None] = {"input": x}
        self.unread: dict[str, Path] = {}

    def add(self, key: str, member: Bound, name: tuple[str, ...]) -> None:
        if self.build.is_absent(member):
            self.known[key] = None
            return
        value = member.value
        whole = isinstance(value, Map) and ("from" in value or "join" in value)
        y = self._joined(Bound(value, member.frame, member.at), name) if whole else self._alone(member, name)
        self.known[key] = self.last = y
        self.newest, self.unread[key] = key, member.place

    def result(self) -> int:
        """What the last member gives. Raises: OpError for a member whose result nobody reads."""
        lost = next((key for key in self.unread if key != self.newest), None)
        if lost is not None:
            hint = "name it in `from` of a later member, or leave it out"
            raise OpError(f"nobody reads the member '{lost}'", hint=hint, code="value").placed_at(self.unread[lost])
        return self.last

    def _alone(self, member: Bound, name: tuple[str, ...]) -> int:
        """An op on what the member before gives."""
        self.unread.pop(self.newest, None)
        if isinstance(member.value, Map) and "op" not in member.value:
            _check_keys(member, _KEYS, "a member")
        if isinstance(member.value, Map) and (key := _meant_from(member.value, member.frame)) is not None:
            hint = f"did you mean 'from'? keys of a member: {', '.join(_KEYS)}"
            error = OpError(f"'{member.value.get('op')}' has no parameter '{key}'", hint=hint, code="unknown-key")
            raise error.placed_at((*member.place, key))
        return self.build.add(member, self.last, None, name)

    def _joined(self, member: Bound, name: tuple[str, ...]) -> int:
        value, frame = member.value, member.frame
        _check_keys(member, _KEYS, "a member")
        before, sources, at = self.last, value.get("from"), (*member.place, "from")
        if "from" in value and sources is None:
            raise OpError("there is no value here", hint="absent: the member before", code="value").placed_at(at)
        joiner = Joiner(self.build, Bound(value.get("join", "sum"), frame, value.at), (*name[:-1], f"{name[-1]}_join"))
        for i, source in enumerate(sources.items if isinstance(sources, Seq) else (sources,)):
            there = (*at, i) if isinstance(sources, Seq) else at
            place, read = (*name[:-1], f"{name[-1]}_from_{i}"), Bound(source, frame, there)
            if (x := self._source(read, before, place)) is not None:
                joiner.take(x, str(source.get("from") if isinstance(source, Map) else source), read.place)
        return self.build.add(
            Bound(value.get("op", "identity"), frame, (*value.at, "op")), joiner.result(before), None, name
        )

    def _source(self, source: Bound, before: int, name: tuple[str, ...]) -> int | None:
        value = source.value
        if not isinstance(value, Map):
            return self._find(value, source, before)
        _check_keys(source, _SOURCE_KEYS, "a source")
        x = self._find(value.get("from"), source, before)
        return (
            x
            if x is None
            else self.build.add(Bound(value.get("op", "identity"), source.frame, value.at), x, None, name)
        )

    def _find(self, name: Any, source: Bound, before: int) -> int | None:
        # a name as it is written: it may also be a definition's, which stands for an op
        member = name if isinstance(name, str) else plain(source.frame.value(name))
        if member is None:
            self.unread.pop(self.newest, None)
            return before
        at = place_in(source.value, source.at)
        if not isinstance(member, str):
            hint = "several are a list: from: [a, {from: b, op: ...}]"
            text = f"a source is the name of a member, not {shown(member)}"
            raise OpError(text, hint=hint, code="value").placed_at(at)
        if member not in self.known:
            hint = did_you_mean(member, self.known, what="before it stand")
            raise OpError(f"no member '{member}' stands before this one", hint=hint, code="unknown-name").placed_at(at)
        self.unread.pop(member, None)
        return self.known[member]


def _meant_from(member: Map, frame: Frame) -> str | None:
    """The key of an op that is nearly called `from`, if the op has no such parameter."""
    op, keys = member.get("op"), [key for key, _ in member.items if key not in (*_KEYS, "dim")]
    if not isinstance(op, str) or (close := nearest("from", keys)) is None:
        return None
    definition = frame.definitions.table.get(op)
    known = dict(definition[0].params) if definition else getattr(BLOCKS.get(op), "model_fields", {})
    return close if close not in known else None


def _check_keys(written: Bound, keys: tuple[str, ...], what: str) -> None:
    """Raise `OpError` for a key that a mapping of a graph does not have."""
    if unknown := next((key for key, _ in written.value.items if key not in keys), None):
        hint = did_you_mean(unknown, keys) + "; parameters of the op go into it: op: {op: ..., ...}"
        error = OpError(f"{what} has no key '{unknown}'", hint=hint, code="unknown-key")
        raise error.placed_at((*written.place, unknown))
