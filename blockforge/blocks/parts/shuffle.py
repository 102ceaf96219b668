"""Channels in another order."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, divisible
from blockforge.blocks.fields import Width
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("shuffle")
class Shuffle(Part):
    """The channels of so many groups in turn: the first of every group, then the second of every group.

    Shape: x_BHWC -> y_BHWC.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if the groups do not divide the channels.
    Reference: ShuffleNet, CVPR 2018, https://arxiv.org/abs/1707.01083.
    """

    token_rule = "each"

    groups: Width = 2
    """Groups of channels, side by side in the map."""

    def check(self, shape: Shape, dim: int | None) -> None:
        divisible(shape.dim, self.groups, "channels", "groups", "groups")

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements if 1 < self.groups < shape.dim else 0

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return ShuffleModule(self.groups)


class ShuffleModule(nn.Module):
    """See `Shuffle`."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.groups, -1)).transpose(-1, -2).flatten(-2)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
