"""Convolutions whose kernel slides as a `Window`: what the parts `conv` and `dwconv` share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Layout, Shape
from blockforge.blocks.filters import Filter
from blockforge.blocks.layers import Conv2d, ConvInit, DWConv
from blockforge.blocks.part import Part
from blockforge.blocks.sliding import Padding, Sides, Window, joined, padded, padded_shape, window


class Convolution(Part):
    """The base of convolutions. What they cost and hold follows from the width that they give and their groups."""

    kernel_size: Sides = 1
    """Sides of the kernel."""
    stride: Sides = 1
    """Steps of the kernel."""
    dilation: Sides = 1
    """Distance of the positions that the kernel reads."""
    padding: Padding = "same"
    """Positions around the map: a number, [height, width], `same` (half the kernel, none where the stride is not
    smaller than it) or `tf` (as TensorFlow pads)."""
    bias: bool | None = None
    """Whether there is a bias; absent: yes, but directly before a norm that needs none."""
    init: ConvInit = "fan_out"
    """How the weights start: a normal of variance 2 / fan_out, one of deviation 0.02, or as torch does."""

    def width(self, shape: Shape, dim: int | None) -> int:
        """Channels that it gives."""
        return dim or shape.dim

    def num_groups(self, shape: Shape) -> int:
        """Groups of channels that do not see each other, on a map of this width."""
        return shape.dim

    @property
    def layout(self) -> Layout:
        return "NCHW"

    @property
    def window(self) -> Window:
        """The kernel as it slides."""
        return window(self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def has_bias(self) -> bool:
        return self.bias is not False

    def before_norm(self) -> Convolution:
        return self.model_copy(update={"bias": False}) if self.bias is None else self

    @property
    def mixes(self) -> bool:
        return self.window.kernel != (1, 1)

    def said(self) -> dict[str, Any]:
        """The parameters that convolutions share, each said in one way."""
        padding = self.window.padding
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "dilation": self.dilation if self.mixes else 1,
            "padding": joined(padding) if padding is not None else "tf",
            "bias": self.has_bias,
            "init": self.init,
        }

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return self.window.out_shape(shape, self.width(shape, dim))

    def as_filter(self, shape: Shape, dim: int | None) -> Filter:
        over, out = self.window, self.width(shape, dim)
        how = (over.kernel, over.stride, over.padding, over.dilation)
        return Filter(shape.dim, out, *how, self.num_groups(shape), self.has_bias)

    def read(self, shape: Shape) -> Shape:
        """The map that is convolved: with the padding that torch's layers do not know, and of a kernel of one position
        the map of what that reads, where it is a copy."""
        over = self.window
        if over.reads_beyond(shape) or (over.kernel == (1, 1) and over.padding not in (None, (0, 0))):
            return over.out_shape(shape, shape.dim)
        return padded_shape(over, shape)

    def adds_input(self, shape: Shape, dim: int | None) -> bool:
        return self.mixes and self.is_dwconv(shape, dim)

    def is_dwconv(self, shape: Shape, dim: int | None) -> bool:
        """Whether its module is a `DWConv`."""
        over = self.window
        return (
            over.padding is not None
            and over.keeps_size
            and self.num_groups(shape) == shape.dim == self.width(shape, dim)
        )

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        out, over = self.out_shape(shape, dim), self.window
        return primitives.conv(
            shape.dim, out.dim, over.kernel, out.positions, read=self.read(shape).positions,
            groups=self.num_groups(shape), bias=self.has_bias, dilation=max(over.dilation),
            alive=self.workspace(shape, dim),
        )  # fmt: skip

    def workspace(self, shape: Shape, dim: int | None) -> int:
        read = self.read(shape)
        return self.out_shape(shape, dim).elements + (read.elements if read is not shape else 0)

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        over, out, groups = self.window, self.width(shape, dim), self.num_groups(shape)
        if over.padding is None:
            return PaddedConv2d(shape.dim, out, over, groups=groups, bias=self.has_bias, init=self.init)
        if self.is_dwconv(shape, dim):
            return DWConv(out, over.kernel, bias=self.has_bias, init=self.init)
        return Conv2d(
            shape.dim, out, over.kernel, stride=over.stride, padding=over.padding, dilation=over.dilation,
            groups=groups, bias=self.has_bias, init=self.init,
        )  # fmt: skip


def slid(filter: Filter) -> dict[str, Any]:
    """The parameters of a convolution of these sizes, but for its groups."""
    padding = joined(filter.padding) if filter.padding is not None else "tf"
    sides = {"kernel_size": filter.kernel, "stride": filter.stride, "dilation": filter.dilation}
    return {**{name: joined(value) for name, value in sides.items()}, "padding": padding, "bias": filter.bias}


class PaddedConv2d(Conv2d):
    """A 2D convolution of x_BCHW that pads as TensorFlow does: by the size of the map, perhaps on one side more."""

    def __init__(self, in_chs: int, out_chs: int, over: Window, *, groups: int, bias: bool, init: ConvInit) -> None:
        super().__init__(
            in_chs, out_chs, over.kernel, stride=over.stride, padding=0, dilation=over.dilation, groups=groups,
            bias=bias, init=init,
        )  # fmt: skip
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(padded(x, self.over))
