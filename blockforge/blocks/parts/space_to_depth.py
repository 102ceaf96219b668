"""Squares of positions as channels."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("space_to_depth")
class SpaceToDepth(Part):
    """The channels of each square of positions side by side: column by column, from above, as Swin merges patches. What
    is missing of the last squares is zero.

    Shape: x_BHWC -> y_B(H/block)(W/block)(block^2 C), sizes rounded up.
    Cost: no parameters and no multiply-adds.
    Reference: Swin Transformer, ICCV 2021, section 3.1, https://arxiv.org/abs/2103.14030.
    """

    block: Annotated[int, Field(ge=1, le=32)] = 2
    """Side of a square."""

    @property
    def mixes(self) -> bool:
        return self.block > 1

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(-(-shape.height // self.block), -(-shape.width // self.block), shape.dim * self.block**2)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        if self.block == 1:
            return 0
        given, padded = self.out_shape(shape, dim).elements, shape.height % self.block or shape.width % self.block
        return 2 * given if padded else given

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return SpaceToDepthModule(self.block)


class SpaceToDepthModule(nn.Module):
    """See `SpaceToDepth`."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        below, right = -x.shape[1] % self.block, -x.shape[2] % self.block
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        block = self.block
        return rearrange(x, "b (h down) (w right) c -> b h w (right down c)", down=block, right=block)

    def extra_repr(self) -> str:
        return f"block={self.block}"
