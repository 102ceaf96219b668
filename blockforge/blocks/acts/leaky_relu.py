"""The rectified linear unit that leaks."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("leaky_relu")
class LeakyReLU(Act):
    """`max(x, 0) + slope * min(x, 0)`, as in Darknet (slope 0.1). With a learnt slope it is `prelu`.

    Shape: keeps it.
    Cost: none.
    Reference: Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013 workshop.
    """

    overwrites: ClassVar[bool] = True

    slope: float = 0.01
    """Factor of what is below zero."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.LeakyReLU(self.slope)
