"""The hyperbolic tangent."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("tanh")
class Tanh(Act):
    """The hyperbolic tangent.

    Shape: keeps it.
    Cost: none.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Tanh()
