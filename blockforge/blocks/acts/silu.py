"""The sigmoid linear unit."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("silu")
class SiLU(Act):
    """`x * sigmoid(x)`, also called swish.

    Shape: keeps it.
    Cost: none.
    Reference: Sigmoid-Weighted Linear Units, https://arxiv.org/abs/1702.03118.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.SiLU()
