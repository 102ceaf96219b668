"""Stochastic depth as a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import DropPath
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("drop_path")
class DropPathPart(Part):
    """In training the whole map of an image is zero with a probability, and the others grow so that the mean stays.

    Shape: x_BHWC -> y_BHWC; in inference the map itself.
    Cost: no parameters and no multiply-adds.
    Reference: Deep Networks with Stochastic Depth, ECCV 2016, https://arxiv.org/abs/1603.09382.
    """

    of_place: ClassVar[Mapping[str, str]] = {"rate": "drop_path"}

    rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of zeros; absent: that of the layer."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return 0

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return DropPath(self.rate) if self.rate else nn.Identity()
