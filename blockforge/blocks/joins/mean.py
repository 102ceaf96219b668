"""The mean as a join."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Shape
from blockforge.blocks.joins.folded import FoldedJoin
from blockforge.blocks.joins.sum import SumModule
from blockforge.blocks.registry import join


@join("mean")
class Mean(FoldedJoin):
    """The mean of the maps. Sides and widths of 1 are broadcast.

    Shape: maps_BHWC -> y_BHWC.
    Cost: no multiply-adds.
    Raises: OpError if the maps differ in size or width.
    Reference: Training data-efficient image transformers (the mean of two classifiers), ICML 2021,
    https://arxiv.org/abs/2012.12877.
    """

    token_rule = "each"

    pairwise = False

    def factors(self, shapes: tuple[Shape, ...]) -> tuple[float, ...] | None:
        return (1 / len(shapes),) * len(shapes) if len(set(shapes)) == 1 else None

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return MeanModule(self.meeting(shapes))


class MeanModule(SumModule):
    """See `Mean`."""

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        total = super().forward(*maps_BHWC)
        return total.div_(len(maps_BHWC)) if len(maps_BHWC) > 1 else total
