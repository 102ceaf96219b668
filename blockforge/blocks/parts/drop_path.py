"""Stochastic depth as a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Shape
from blockforge.blocks.layers import DropPath
from blockforge.blocks.part import TrainingPart
from blockforge.blocks.registry import part
from blockforge.spec.fields import Rate


@part("drop_path")
class DropPathPart(TrainingPart):
    """In training the whole map of an image is zero with a probability, and the others grow so that the mean stays.

    Shape: x_BHWC -> y_BHWC; in inference the map itself.
    Cost: no parameters and no multiply-adds.
    Reference: Deep Networks with Stochastic Depth, ECCV 2016, https://arxiv.org/abs/1603.09382.
    """

    token_rule = "each"

    of_place: ClassVar[Mapping[str, str]] = {"rate": "drop_path"}

    rate: Rate = 0.0
    """Probability of zeros; absent: that of the layer."""

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return DropPath(self.rate) if self.rate else nn.Identity()
