"""The exponential linear unit."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("elu")
class ELU(Act):
    """`x` above zero, `alpha * (exp(x) - 1)` below.

    Shape: keeps it.
    Cost: none.
    Reference: Fast and Accurate Deep Network Learning by Exponential Linear Units, https://arxiv.org/abs/1511.07289.
    """

    overwrites: ClassVar[bool] = True

    alpha: float = 1.0
    """What it comes near to far below zero, with the opposite sign."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.ELU(self.alpha)
