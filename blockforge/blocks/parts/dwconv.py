"""A depth-wise convolution: what the mixer `dwconv` is inside a block."""

from __future__ import annotations

from blockforge.blocks.base import Op, Shape
from blockforge.blocks.convolution import Convolution, slid
from blockforge.blocks.filters import Filter
from blockforge.blocks.sliding import Sides


class DepthwisePart(Convolution):
    """One filter a channel.

    Shape: x_BHWC -> y_BHWC, sizes by kernel, stride and padding.
    Cost: kernel height * kernel width * C multiply-adds an output position.
    """

    op = "dwconv"
    kernel_size: Sides = 3
    """Sides of the kernel."""

    def width(self, shape: Shape, dim: int | None) -> int:
        return shape.dim

    def with_filter(self, filter: Filter) -> DepthwisePart | None:
        return DepthwisePart(**slid(filter)) if filter.groups == filter.in_chs == filter.out_chs else None

    def resolved(self, shape: Shape, dim: int | None) -> Op[Shape, int | None]:
        return DepthwisePart(**self.said())
