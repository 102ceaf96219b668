"""Any acyclic arrangement of ops."""

from __future__ import annotations

from typing import Any

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound, plain
from blockforge.blocks.compose.joined import Joiner
from blockforge.blocks.compose.written import Map, Seq, place_in
from blockforge.blocks.registry import part
from blockforge.errors import OpError, did_you_mean

_KEYS = ("from", "join", "op", "when")


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
        known, y = {"input": x}, x
        for key, value in self.of.value.items:
            y = known[key] = self._member(build, known, y, Bound(value, self.of.frame, self.of.place), (*name, key))
        return y

    def _member(self, build: Builder, known: dict[str, int], last: int, member: Bound, name: tuple[str, ...]) -> int:
        value, frame = member.value, member.frame
        if not isinstance(value, Map):
            return build.add(member, last, None, name)
        if unknown := next((k for k, _ in value.items if k not in _KEYS), None):
            raise OpError(f"a member has no key '{unknown}'", hint=did_you_mean(unknown, _KEYS), code="unknown-key")
        sources = value.get("from")
        join = Bound(value.get("join", "sum"), frame, value.at)
        joiner = Joiner(build, join, None, (*name[:-1], f"{name[-1]}_join"))
        for i, source in enumerate(sources.items if isinstance(sources, Seq) else (sources,)):
            place = (*name[:-1], f"{name[-1]}_from_{i}")
            joiner.take(self._source(build, known, last, Bound(source, frame, value.at), place))
        y = joiner.result(last)
        return build.add(Bound(value.get("op", "identity"), frame, (*value.at, "op")), y, None, name)

    def _source(self, build: Builder, known: dict[str, int], last: int, source: Bound, name: tuple[str, ...]) -> int:
        value = source.value
        if isinstance(value, Map):
            x = self._find(known, last, value.get("from"), source)
            return build.add(Bound(value.get("op", "identity"), source.frame, value.at), x, None, name)
        return self._find(known, last, value, source)

    def _find(self, known: dict[str, int], last: int, name: Any, source: Bound) -> int:
        found = plain(source.frame.value(name))
        if found is None:
            return last
        if found not in known:
            at = place_in(source.value, source.at)
            hint = did_you_mean(str(found), known, what="before it stand")
            raise OpError(f"no member '{found}' stands before this one", hint=hint, code="unknown-name").placed_at(at)
        return known[found]
