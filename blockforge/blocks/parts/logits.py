"""The classifier as a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.filters import Filter
from blockforge.blocks.layers import Linear
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.spec.fields import MAX_CLASSES


@part("logits")
class Logits(Part):
    """The linear layer to the classes, at each position. With 0 classes it is absent.

    Shape: x_BHWC -> y_BHWK, K classes.
    Cost: C * K multiply-adds a position.
    """

    token_rule = "each"

    of_place: ClassVar[Mapping[str, str]] = {"num_classes": "classes"}

    classifies = True

    num_classes: Annotated[int, Field(ge=0, le=MAX_CLASSES)] = 1000
    """Classes; absent: those of the spec."""
    bias: bool = True
    """Whether there is a bias."""

    def as_filter(self, shape: Shape, dim: int | None) -> Filter | None:
        return Filter(shape.dim, self.num_classes, bias=self.bias) if self.num_classes else None

    def with_filter(self, filter: Filter) -> Logits | None:
        is_linear = filter.is_pointwise and filter.groups == 1
        return Logits(num_classes=filter.out_chs, bias=filter.bias) if is_linear else None

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=self.num_classes or shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        if not self.num_classes:
            return Cost()
        return primitives.linear(shape.dim, self.num_classes, shape.positions, bias=self.bias)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.positions * self.num_classes

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return classifier(shape.dim, self.num_classes, bias=self.bias)


def classifier(dim: int, num_classes: int, *, bias: bool = True) -> nn.Module:
    """The linear layer to the classes; of none what changes nothing."""
    return Linear(dim, num_classes, bias=bias) if num_classes else nn.Identity()
