"""The squared rectified linear unit with a learnt scale and bias."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Act, Cost, Shape
from blockforge.blocks.registry import act


@act("star_relu")
class StarReLU(Act):
    """`scale * max(x, 0)^2 + bias`, both learnt, one of each for the whole map. The values that they start at give a
    normal input mean 0 and variance 1.

    Shape: keeps it.
    Cost: 2 parameters.
    Reference: MetaFormer Baselines for Vision, https://arxiv.org/abs/2210.13452.
    """

    overwrites: ClassVar[bool] = True

    scale: float = 0.8944
    """Initial value of the scale."""
    bias: float = -0.4472
    """Initial value of the bias."""

    def cost(self, shape: Shape) -> Cost:
        return Cost(2)

    def workspace(self, shape: Shape) -> int:
        return 2 * shape.elements  # each step's input and result

    def build(self, shape: Shape) -> nn.Module:
        return StarReLUModule(self.scale, self.bias)


class StarReLUModule(nn.Module):
    """See `StarReLU`."""

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        self.starts = (scale, bias)
        self.scale = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self.starts[0])
        nn.init.constant_(self.bias, self.starts[1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square() * self.scale.to(x.dtype) + self.bias.to(x.dtype)

    def overwrite(self, x: Tensor) -> Tensor:
        """The same in the memory of x."""
        return F.relu_(x).square_().mul_(self.scale.to(x.dtype)).add_(self.bias.to(x.dtype))

    def no_weight_decay(self) -> set[str]:
        return {"scale", "bias"}
