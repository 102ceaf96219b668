"""Average pooling as a token mixer."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.registry import mixer


@mixer("pooling")
class Pooling(Mixer):
    """The mean of each position's neighbourhood, less the position itself, which the residual branch adds.
    Positions outside the map count for nothing.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: no parameters and no multiply-adds.
    Reference: MetaFormer Is Actually What You Need for Vision, CVPR 2022, https://arxiv.org/abs/2111.11418.
    """

    kernel_size: Annotated[OddKernel, Field(ge=3)] = 3
    """Side of the neighbourhood."""

    def cost(self, shape: Shape) -> Cost:
        return Cost()

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return PoolingModule(self.kernel_size)


class PoolingModule(nn.Module):
    """See `Pooling`."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        x_BCHW, side = x.permute(0, 3, 1, 2), self.kernel_size
        mean = F.avg_pool2d(x_BCHW, side, stride=1, padding=side // 2, count_include_pad=False)
        return mean.sub_(x_BCHW).permute(0, 2, 3, 1)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"
