"""A third party's activation, as a plugin file: swish with a learnt slope."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Act, Cost, Shape
from blockforge.blocks.registry import act


@act("learnt_swish")
class LearntSwish(Act):
    """`x * sigmoid(beta * x)`, beta learnt."""

    beta: float = 1.0
    """Initial value of beta."""

    def cost(self, shape: Shape) -> Cost:
        return Cost(params=1)

    def workspace(self, shape: Shape) -> int:
        return 2 * shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return LearntSwishModule(self.beta)


class LearntSwishModule(nn.Module):
    """See `LearntSwish`."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.start = beta
        self.beta = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.beta, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * (x * self.beta.to(x.dtype)).sigmoid()
