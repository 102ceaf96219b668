"""Equal shares of a map's channels as further images of the batch, and side by side again: one op then runs on all.

Shapes: B batch, H height, W width, N shares, C channels of one.
"""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import copied
from blockforge.blocks.part import Part


class Folding(Part):
    """What both have in common: they copy the map, and each position keeps its place in it."""

    token_rule = "each"
    count: int
    """Shares."""

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()


class Fold(Folding):
    """The first shares of all images, then the second ones: what keeps tiles of an image apart finds them as it would
    without shares."""

    op = "fold"

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=shape.dim // self.count)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return FoldModule(self.count)


class FoldModule(nn.Module):
    """See `Fold`: (B, H, W, N * C) -> (N * B, H, W, C)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return copied(x.unflatten(-1, (self.count, -1)).permute(3, 0, 1, 2, 4)).flatten(0, 1)


class Unfold(Folding):
    """The inverse of `Fold`."""

    op = "unfold"

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=shape.dim * self.count)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements * self.count

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return UnfoldModule(self.count)


class UnfoldModule(nn.Module):
    """See `Unfold`: (N * B, H, W, C) -> (B, H, W, N * C)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return copied(x.unflatten(0, (self.count, -1)).permute(1, 2, 3, 0, 4)).flatten(3)
