"""Dropout of single values."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

Rate = Annotated[float, Field(ge=0, lt=1)]


@part("dropout")
class Dropout(Part):
    """In training every value is zero with a probability, and the others grow so that the mean stays.

    Shape: x_BHWC -> y_BHWC; in inference the map itself.
    Cost: no parameters and no multiply-adds.
    Reference: Dropout, JMLR 2014, https://jmlr.org/papers/v15/srivastava14a.html.
    """

    rate: Rate = 0.5
    """Probability of a zero."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return 0

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return nn.Dropout(self.rate) if self.rate else nn.Identity()
