"""No activation, as one."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import twin


@twin("identity")
class Identity(Act):
    """Gives its input. `none` says the same; the mixer `identity` does.

    Shape: keeps it.
    Cost: none.
    """

    overwrites: ClassVar[bool] = True
    passes: ClassVar[bool] = True

    def workspace(self, shape: Shape) -> int:
        return 0

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()
