"""Norms made of ops: what may stand where a norm stands, before a branch's op or as a parameter of a block."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from blockforge.blocks import registry
from blockforge.blocks.base import Kind, Norm, Shape
from blockforge.blocks.compose.frame import Bound, plain, plain_op
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.written import Map, freeze
from blockforge.blocks.compose.written_op import Written, asked_for, is_composed, unwrapped
from blockforge.errors import OpError

_KINDS: tuple[Kind, ...] = ("norm",)
_OF_MAPS = frozenset({"in", "out", "height", "width"})
"""Names that only the map gives."""


class WrittenNorm(OfParts[Shape], Norm):
    """A norm of any form: ops that give a map of the shape that they read."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    by_name = False
    bias_before = True  # as before any op that is not a norm by its name

    of: Bound

    def with_names(self, names: dict[str, Any]) -> WrittenNorm:
        """See `Written.with_names`."""
        return WrittenNorm(of=Written(of=self.of).with_names(names).of)

    @property
    def title(self) -> str:
        return Written(of=self.of).title

    def parameters_dict(self) -> dict[str, Any]:
        return Written(of=self.of).parameters_dict()

    def as_parameter(self) -> Any:
        return self.of.as_parameter()

    def as_program(self, shape: Shape) -> Program:
        try:
            program = Written(of=self.of).as_program(shape, shape.dim)
        except OpError as e:
            if self.of.place:
                raise
            raise OpError(str(e), hint=e.hint, code=e.code) from None  # of a parameter: its block knows where that is
        if program.out_shape != shape:
            text = f"what stands for the norm gives {program.out_shape}, it reads {shape}"
            raise OpError(text, hint="a norm keeps its map: what changes it belongs to the op, [..., op]")
        return program


def norm_of(bound: Bound) -> Norm:
    """What is written where a norm stands: a registered one, by its name or that of a definition, or ops. Raises:
    OpError."""
    alone = unwrapped(bound)  # places aside
    if not asked_for(bound.value, bound.frame.definitions) & _OF_MAPS:
        alone = unwrapped(Bound(freeze(plain(bound))))
    if is_composed(alone, _KINDS):
        return WrittenNorm(of=bound if bound.place else alone)
    made = registry.make(*plain_op(alone), *_KINDS)
    assert isinstance(made, Norm)
    return made


def norm_on(norm: Norm | None, shape: Shape) -> Norm | None:
    """The norm of a map; None also where `when` leaves nothing of it."""
    program = norm.as_program(shape) if norm is not None else None
    return None if program is not None and not program.steps else norm


def is_op(value: Any) -> bool:
    """Whether a value has the form of an op."""
    return isinstance(value, str | list | tuple) or (isinstance(value, dict | Map) and "op" in value)
