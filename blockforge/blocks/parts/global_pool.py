"""One position of all."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

Reduction = Literal["mean", "max", "sum"]


@part("global_pool")
class GlobalPool(Part):
    """The mean, the maximum or the sum of each channel over all positions, as a map of one.

    Shape: x_BHWC -> y_B11C.
    Cost: no parameters and no multiply-adds.
    """

    pool: Reduction = "mean"
    """What is taken of the positions."""

    @property
    def mixes(self) -> bool:
        return True

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(1, 1, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.dim

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return GlobalPoolModule(self.pool)


class GlobalPoolModule(nn.Module):
    """See `GlobalPool`."""

    def __init__(self, pool: Reduction) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if self.pool == "sum":
            return x.sum((1, 2), keepdim=True)
        return x.mean((1, 2), keepdim=True) if self.pool == "mean" else x.amax((1, 2), keepdim=True)

    def extra_repr(self) -> str:
        return f"pool={self.pool}"
