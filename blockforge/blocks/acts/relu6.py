"""The rectified linear unit, cut at 6."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("relu6")
class ReLU6(Act):
    """`min(max(x, 0), 6)`.

    Shape: keeps it.
    Cost: none.
    Reference: MobileNetV2, CVPR 2018, https://arxiv.org/abs/1801.04381.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.ReLU6()
