"""Ops as specs write them, in the places of a network: a branch, a stem, a downsample, a head."""

from __future__ import annotations

import functools
from typing import Any

from blockforge.blocks import registry
from blockforge.blocks.base import Kind, Shape
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound, Definitions, Frame
from blockforge.blocks.compose.members import called_by
from blockforge.blocks.compose.written import Map, Seq, parts_of, thaw
from blockforge.errors import OpError, did_you_mean
from blockforge.spec.values import Expr, Ref

_NOMINAL = (56, 56)
"""A map's sides where the real ones are not known yet."""


class Written(Composite):
    """An op of any form: what `of` says, read on the map that it stands on."""

    by_name = False

    of: Bound
    called: str = ""
    """Its name in pictures and tables, where that is not its op's."""

    @property
    def title(self) -> str:
        return self.called or called_by(self.of)

    def with_names(self, names: dict[str, Any]) -> Written:
        """The same where these names of the place have these values. Those that nothing in it asks for are left out,
        so that layers that are alike stay equal."""
        value, frame = self.of.value, self.of.frame
        asked = asked_for(value, frame.definitions)
        kept = tuple((k, v) for k, v in names.items() if k in asked)
        return Written(of=Bound(value, Frame(kept, frame.definitions), self.of.at), called=self.called)

    def parameters_dict(self) -> dict[str, Any]:
        """What is written."""
        return {"of": thaw(self.of.value)}

    def mixes_at(self, dim: int | None) -> bool:
        """Whether a part of it mixes positions, as far as is known before its map is: where nothing is, it may."""
        return _mixes(self, dim)

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        return build.add(self.of, x, dim, name, self.of.frame.on(build.shapes[x], dim))


@functools.lru_cache(4096)
def _mixes(op: Written, dim: int | None) -> bool:
    try:
        steps = op.as_program(Shape(*_NOMINAL, dim or 64), dim).steps
    except OpError:
        return True
    return any(getattr(step.op, "mixes", step.op.kind == "mixer") for step in steps)


@functools.lru_cache(4096)
def asked_for(value: Any, definitions: Definitions) -> frozenset[str]:
    """The names that an op, and the definitions that it may call, read."""
    names: set[str] = set()
    opened: set[int] = set()
    todo = [(value, definitions)]
    while todo:
        written, known = todo.pop()
        for part in parts_of(written):
            if isinstance(part, Ref):
                names.add(part.name)
            elif isinstance(part, Expr):
                names |= part.names()
            elif isinstance(part, str) and part in known.table:
                definition, home = known.table[part]
                if id(definition) not in opened:
                    opened.add(id(definition))
                    todo += [(inner, home) for inner in (definition.body, *dict(definition.params).values())]
            elif isinstance(part, str) and part in registry.BLOCKS:
                names |= set(getattr(registry.BLOCKS[part], "of_place", {}).values())
    return frozenset(names)


_OF_LAYERS: tuple[Kind, ...] = ("mixer", "ffn")
"""The kinds of a place that names two. Where there are more, any op may stand."""
_ALONE: dict[Kind, tuple[Kind, ...]] = {
    "mixer": ("part", "join", "act", "norm", "downsample"), "stem": ("part", "downsample"),
    "downsample": ("part", "stem"), "head": ("part",), "norm": ("part", "act"),
}  # fmt: skip
"""For the first kind of a place: the further kinds of which one block alone may stand there, beside what passes its
input on, which stands anywhere. In a list all may."""


def is_composed(bound: Bound, kinds: tuple[Kind, ...]) -> bool:
    """Whether an op in a place for blocks of these kinds is anything but such a block with parameters that are
    known."""
    value, definitions = bound.value, bound.frame.definitions
    if kinds[0] not in _ALONE:
        return False
    if not isinstance(value, Map) or not isinstance(op := value.get("op"), str) or "when" in value:
        return True
    if op in definitions.table:
        return True
    if (cls := registry.BLOCKS.get(op)) is None:  # where the map is known it is told what stands here
        return len(kinds) > len(_OF_LAYERS) or _reads_late(value)
    if cls.kind not in kinds:
        return cls.kind in _ALONE[kinds[0]] or cls.passes
    return cls.kind != "head" and _reads_late(value)


def unknown_op(name: str, kinds: tuple[Kind, ...], definitions: Definitions) -> OpError | None:
    """A name that no block has, in a place for these kinds where others may stand, too: all of them are known. None: in
    another place."""
    if kinds[0] not in _ALONE:
        return None
    own = [n for n in registry.blocks(*kinds) if n not in definitions.table]
    others = registry.blocks(*kinds, *_ALONE[kinds[0]]).keys() - {*own, *definitions.table}
    hint = did_you_mean(name, others, what="known here", first=[*definitions.table, *own])
    text = f"no {' or '.join(kinds)} named '{name}'"
    return OpError(text, hint=hint, param="op", code=f"unknown-{kinds[0]}")


def _reads_late(value: Any) -> bool:
    return any(isinstance(part, Ref | Expr) for part in parts_of(value))


def unwrapped(bound: Bound) -> Bound:
    """An op without the lists of one and the mappings that say nothing around it."""
    value = bound.value
    if isinstance(value, Seq) and len(value.items) == 1:
        return unwrapped(Bound(value.items[0], bound.frame, (*bound.place, 0)))
    if isinstance(value, Map) and [k for k, _ in value.items] == ["op"] and not isinstance(value.get("op"), str):
        return unwrapped(Bound(value.get("op"), bound.frame, (*bound.place, "op")))
    if isinstance(value, str):
        return Bound(Map((("op", value),), bound.at), bound.frame, bound.at)
    return bound
