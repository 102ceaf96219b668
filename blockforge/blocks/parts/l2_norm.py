"""Values of length 1."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, TokenRule
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

Axis = Literal["channels", "positions"]


@part("l2_norm")
class L2Norm(Part):
    """Divides by the root of the sum of squares, over the channels of a position or over the positions of a channel:
    what is left has length 1, and products of two such are cosines.

    Shape: x_BHWC -> y_BHWC.
    Cost: no parameters and no multiply-adds.
    Reference: SwiftFormer, ICCV 2023, https://arxiv.org/abs/2303.15446.
    """

    axis: Axis = "channels"
    """What becomes of length 1: the channels of each position, or the positions of each channel."""

    def tokens_are(self) -> TokenRule:
        return "all" if self.axis == "positions" else "each"

    @property
    def mixes(self) -> bool:
        return self.axis == "positions"

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements + (shape.positions if self.axis == "channels" else shape.dim)

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return L2NormModule(self.axis)


class L2NormModule(nn.Module):
    """See `L2Norm`."""

    def __init__(self, axis: Axis) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        if self.axis == "channels":
            return F.normalize(x, dim=-1)
        return F.normalize(x.flatten(1, 2), dim=1).view(x.shape)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
