"""The sigmoid linear unit in straight lines."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("hard_swish")
class HardSwish(Act):
    """`x * hard_sigmoid(x)`.

    Shape: keeps it.
    Cost: none.
    Reference: Searching for MobileNetV3, ICCV 2019, https://arxiv.org/abs/1905.02244.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Hardswish()
