"""The rectified linear unit with learnt slopes below zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Act, Cost, Shape
from blockforge.blocks.registry import act


@act("prelu")
class PReLU(Act):
    """`max(x, 0) + slope * min(x, 0)` with a learnt slope for the whole map, or one a channel.

    Shape: keeps it.
    Cost: 1 parameter, or dim parameters.
    Reference: Delving Deep into Rectifiers, ICCV 2015, https://arxiv.org/abs/1502.01852.
    """

    per_channel: bool = False
    """A slope for each channel."""
    init: float = 0.25
    """Initial value of the slopes."""

    def cost(self, shape: Shape) -> Cost:
        return Cost(shape.dim if self.per_channel else 1)

    def build(self, shape: Shape) -> nn.Module:
        return ChannelPReLU(shape.dim, self.init) if self.per_channel else nn.PReLU(init=self.init)


class ChannelPReLU(nn.Module):
    """torch's PReLU with a slope for each value of the last axis, where torch's has one for each of the second."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.init)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x.movedim(-1, 1), self.weight).movedim(1, -1)

    def no_weight_decay(self) -> set[str]:
        return {"weight"}
