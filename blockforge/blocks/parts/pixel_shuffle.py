"""Channels as squares of positions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, divisible
from blockforge.blocks.divisors import nearest
from blockforge.blocks.layers import copied
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("pixel_shuffle")
class PixelShuffle(Part):
    """The channels as squares of positions, `block` times as many along each side (depth to space): behind a `linear`
    to `block^2` times the width it makes a map larger. A channel's square lies side by side in the channels, row by
    row, as torch has it.

    Shape: x_BHWC -> y_B(H block)(W block)(C / block^2).
    Cost: no parameters and no multiply-adds.
    Raises: OpError if block^2 does not divide the channels.
    Reference: Real-Time Single Image and Video Super-Resolution, CVPR 2016, https://arxiv.org/abs/1609.05158.
    """

    block: Annotated[int, Field(ge=1, le=32)] = 2
    """Side of a square."""

    def check(self, shape: Shape, dim: int | None) -> None:
        sides = (side for side in range(2, 33) if shape.dim % side**2 == 0)
        divisible(shape.dim, self.block**2, "channels", "block^2", "block", nearest("block", sides, self.block))

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(shape.height * self.block, shape.width * self.block, shape.dim // self.block**2)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements if self.block > 1 else 0

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return PixelShuffleModule(self.block) if self.block > 1 else nn.Identity()


class PixelShuffleModule(nn.Module):
    """See `PixelShuffle`."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        x_BHWCdr = x.unflatten(-1, (-1, self.block, self.block))
        return copied(x_BHWCdr.permute(0, 1, 4, 2, 5, 3)).flatten(1, 2).flatten(2, 3)

    def extra_repr(self) -> str:
        return f"block={self.block}"
