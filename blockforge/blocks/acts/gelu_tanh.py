"""The Gaussian error linear unit, approximated."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("gelu_tanh")
class GELUTanh(Act):
    """`gelu` by way of a tanh: up to 5e-4 beside it.

    Shape: keeps it.
    Cost: none.
    Reference: Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.GELU(approximate="tanh")
