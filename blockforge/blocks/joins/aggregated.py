"""Aggregators as joins: the names of both are one namespace, and either joins the members of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from blockforge.blocks import registry
from blockforge.blocks.base import Aggregator, AnyOp, Cost, Shape, TokenRule
from blockforge.blocks.joins.meeting import listed
from blockforge.blocks.part import Join
from blockforge.errors import OpError


def make_join(name: str, params: Mapping[str, Any]) -> Join:
    """The join `name`, or what the aggregator of that name is as one.

    Raises: OpError if there is neither, ParamsError for parameters that are unknown or do not validate.
    """
    return as_join(registry.make(name, params, "join", "aggregator"))


def as_join(op: AnyOp) -> Join:
    """A join as it is, an aggregator in the form that it gives, or else adapted."""
    if isinstance(op, Join):
        return op
    assert isinstance(op, Aggregator)
    return op.as_join() or AggregatedJoin(aggregator=op)


class AggregatedJoin(Join):
    """An aggregator as a join: the first map is its input, the others are its sources.

    Shape: maps_BHW*, of one size -> y_BHWD; D is the width asked for, or that of the first map.
    Cost: the aggregator's.
    Raises: OpError if the maps differ in size, if there are fewer than two, and what the aggregator raises.
    """

    op = "aggregated"
    aggregator: Aggregator
    """The aggregator."""

    def tokens_are(self) -> TokenRule:
        return self.aggregator.tokens_are()

    def place(self, shapes: tuple[Shape, ...], dim: int | None) -> tuple[Shape, tuple[int, ...], int]:
        """Where the aggregator stands."""
        first, *others = shapes
        return first, tuple(shape.dim for shape in others), dim or first.dim

    def resolved(self, shapes: tuple[Shape, ...], dim: int | None) -> AggregatedJoin:
        return self.model_copy(update={"aggregator": self.aggregator.resolved(*self.place(shapes, dim))})

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        name = self.aggregator.op
        if len(shapes) < 2:
            raise OpError(f"{name} has a single map of {listed(shapes)} to join", hint="it takes two or more")
        if len({shape[:2] for shape in shapes}) > 1:
            text = f"maps of {listed(shapes)} do not meet: {name} takes maps of one size"
            raise OpError(text, hint="resize them before", code="sizes")
        self.aggregator.check(*self.place(shapes, dim))

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return self.aggregator.out_shape(*self.place(shapes, dim))

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        return self.aggregator.cost(*self.place(shapes, dim))

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        return self.aggregator.workspace(*self.place(shapes, dim))

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return AggregatedModule(self.aggregator.build(*self.place(shapes, dim)))


class AggregatedModule(nn.Module):
    """See `AggregatedJoin`."""

    def __init__(self, aggregator: nn.Module) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        y: Tensor = self.aggregator(maps_BHWC[0], list(maps_BHWC[1:]))
        return y
