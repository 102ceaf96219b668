"""A linear layer at each position."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Op, Shape
from blockforge.blocks.filters import Filter
from blockforge.blocks.layers import ConvInit, Linear
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("linear")
class LinearPart(Part):
    """A linear layer at each position. It gives the width that it is asked for, else the one that it reads.

    Shape: x_BHWC -> y_BHWD.
    Cost: C * D multiply-adds a position.
    """

    token_rule = "each"
    silent = frozenset({"init"})

    bias: bool | None = None
    """Whether there is a bias; absent: yes, but directly before a norm that needs none."""
    init: ConvInit | None = None
    """How the weights start: a normal of variance 2 / fan_out, one of deviation 0.02, or as torch does; absent: the
    second."""

    def before_norm(self) -> LinearPart:
        return self.model_copy(update={"bias": False}) if self.bias is None else self

    def resolved(self, shape: Shape, dim: int | None) -> Op[Shape, int | None]:
        return LinearPart(bias=self.bias is not False, init=None if self.init == "trunc_normal" else self.init)

    def as_filter(self, shape: Shape, dim: int | None) -> Filter:
        return Filter(shape.dim, dim or shape.dim, bias=self.bias is not False)

    def with_filter(self, filter: Filter) -> LinearPart | None:
        return LinearPart(bias=filter.bias) if filter.is_pointwise and filter.groups == 1 else None

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=dim or shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return primitives.linear(shape.dim, dim or shape.dim, shape.positions, bias=self.bias is not False)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return Linear(shape.dim, dim or shape.dim, bias=self.bias is not False, init=self.init or "trunc_normal")
