"""The sum of maps: what the aggregator `sum` is as a join."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from blockforge.blocks.base import Shape
from blockforge.blocks.joins.folded import FoldedJoin, FoldedModule
from blockforge.blocks.joins.meeting import Meeting
from blockforge.errors import OpError

Weights = Annotated[
    tuple[float, ...],
    Field(min_length=1, max_length=256),
    BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
]
"""A factor for each map."""


class SumJoin(FoldedJoin):
    """The sum of the maps. Sides and widths of 1 are broadcast.

    Shape: maps_BHWC -> y_BHWC.
    Cost: no multiply-adds.
    Raises: OpError if the maps differ in size or width.
    """

    token_rule = "each"

    op = "sum"

    def factors(self, shapes: tuple[Shape, ...]) -> tuple[float, ...] | None:
        return (1.0,) * len(shapes) if len(set(shapes)) == 1 else None

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return SumModule(self.meeting(shapes))


class SumModule(FoldedModule):
    """See `SumJoin`."""

    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        return y + x


class WeightedSumJoin(FoldedJoin):
    """The sum of the maps, each times a fixed factor: `weights: [1, -1]` is a difference.

    Shape: maps_BHWC -> y_BHWC.
    Cost: no multiply-adds.
    Raises: OpError if the maps differ in size or width, or in number from the factors.
    """

    token_rule = "each"

    op = "sum"
    pairwise = False
    alone = True
    weights: Weights
    """The factors, in the order of the maps."""

    @property
    def commutes(self) -> bool:
        return False

    def resolved(self, shapes: tuple[Shape, ...], dim: int | None) -> FoldedJoin:
        plain = FoldedJoin.resolved(self, shapes, dim)
        assert isinstance(plain, WeightedSumJoin)
        return SumJoin(resize=plain.resize) if set(self.weights) == {1.0} else plain

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        super().check(shapes, dim)
        check_weights(self.weights, len(shapes))

    def factors(self, shapes: tuple[Shape, ...]) -> tuple[float, ...] | None:
        return self.weights if len(set(shapes)) == 1 else None

    def begun(self, first: Shape) -> int:
        return first.elements if self.weights[0] != 1 else 0

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return WeightedSumModule(self.meeting(shapes), self.weights)


class WeightedSumModule(nn.Module):
    """See `WeightedSumJoin`."""

    def __init__(self, meeting: Meeting, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.meeting, self.weights = meeting, weights

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        y = maps_BHWC[0] if self.weights[0] == 1 else maps_BHWC[0] * self.weights[0]
        for i, weight in enumerate(self.weights[1:], 1):
            y = torch.add(y, self.meeting.sized(maps_BHWC, i), alpha=weight)
        return y

    def extra_repr(self) -> str:
        return f"weights={list(self.weights)}"


def check_weights(weights: tuple[float, ...], maps: int) -> None:
    """Raises: OpError unless there is a factor for each map."""
    if len(weights) != maps:
        text = f"there are {len(weights)} weights for {maps} maps"
        raise OpError(text, hint="give one for each, in their order", param="weights", code="value")
