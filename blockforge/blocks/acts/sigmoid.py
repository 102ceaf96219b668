"""The sigmoid."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("sigmoid")
class Sigmoid(Act):
    """`1 / (1 + exp(-x))`.

    Shape: keeps it.
    Cost: none.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Sigmoid()
