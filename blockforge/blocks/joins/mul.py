"""The product as a join."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Shape
from blockforge.blocks.joins.folded import FoldedJoin, FoldedModule
from blockforge.blocks.registry import join


@join("mul")
class Mul(FoldedJoin):
    """The product of the maps, channel by channel: gates. Sides and widths of 1 are broadcast.

    Shape: maps_BHWC -> y_BHWC.
    Cost: no multiply-adds, as operator counters have it.
    Raises: OpError if the maps differ in size or width.
    Reference: Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507.
    """

    token_rule = "each"

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return MulModule(self.meeting(shapes))


class MulModule(FoldedModule):
    """See `Mul`."""

    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        return y * x
