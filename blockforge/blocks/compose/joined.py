"""Several values joined into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.members import key_of_op, width
from blockforge.blocks.compose.written import Map
from blockforge.blocks.joins.aggregated import as_join
from blockforge.blocks.joins.meeting import unasked_width
from blockforge.blocks.part import Join
from blockforge.errors import OpError, Path

if TYPE_CHECKING:
    from blockforge.blocks.compose.expand import Builder


class Joiner:
    """Joins values as they come, two at a time where the join allows it: then no more than two maps live.

    Args:
        join: what joins: a join, or an aggregator; it is asked for a width by a `dim` of its own alone.
        name: of the composite's module.
    """

    def __init__(self, build: Builder, join: Bound, name: tuple[str, ...]) -> None:
        self.build, self.dim, self.at = build, None, join.place
        if isinstance(join.value, Map) and "dim" in join.value:
            self.dim = width(key_of_op(join.value, "dim", join.frame, join.place))
            join = Bound(Map(tuple(join.value.without("dim").items()), join.value.at), join.frame, join.at)
        made = build.made(join, "join", "aggregator")
        self.join, self.name = as_join(made), (*name, made.op)
        self.values: list[int] = []
        self.taken: list[tuple[int, str, Path]] = []

    def take(self, value: int, giver: str, at: Path) -> None:
        """One more map. `giver`: what gives it, written at a place."""
        self.values.append(value)
        self.taken.append((value, giver, at))
        if self.join.pairwise and len(self.values) == 2:
            self.values = [self._step()]

    def result(self, x: int) -> int:
        """The joined map; without any value `x`. Raises: OpError unless it is as wide as it was asked to be."""
        if not self.values:
            return x
        y, *others = self.values
        if others or self.join.alone or self.dim not in (None, self.build.shapes[y].dim):
            y = self._step()
        if self.dim is not None and (given := self.build.shapes[y].dim) != self.dim:
            raise unasked_width(self.join.op, given, self.dim).placed_at(self.at)
        return y

    def _step(self) -> int:
        try:
            return self.build.step(self.join, tuple(self.values), self.dim, self.name, self.at)
        except OpError as e:
            e.sources = [(f"'{giver}' gives {self.build.shapes[value]}", at) for value, giver, at in self.taken]
            raise e.placed_at(self.at) from None


class Add(Join):
    """The sum of two maps of one shape. It has no module: it is written into the code."""

    op = "add"
    token_rule = "each"
    pairwise = True
    elementwise = True
    inline = "added({}, {})"

    def factors(self, shapes: tuple[Shape, ...]) -> tuple[float, ...]:
        return (1.0, 1.0)

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return shapes[0]

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        return shapes[0].elements

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        raise AssertionError("it is written into the code")
