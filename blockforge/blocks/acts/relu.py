"""The rectified linear unit."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("relu")
class ReLU(Act):
    """`max(x, 0)`.

    Shape: keeps it.
    Cost: none.
    Reference: Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.ReLU()
