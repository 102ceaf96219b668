"""Pools by a `Window`: what they share, and those that pad as TensorFlow does."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Layout, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.sliding import Padding, Sides, Window, padded, padded_shape, small_padding, window


class Pool(Part):
    """The base of pools whose kernel slides."""

    kernel_size: Sides = 2
    """Sides of the kernel."""
    stride: Sides | None = None
    """Steps of the kernel; absent: its sides."""
    padding: Padding = "same"
    """Positions around the map: a number, [height, width], `same` (half the kernel, none where the stride is not
    smaller than it) or `tf` (as TensorFlow pads)."""
    ceil: bool = False
    """Whether the last kernel may reach beyond the map."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    @property
    def window(self) -> Window:
        """The kernel as it slides."""
        stride = self.kernel_size if self.stride is None else self.stride
        return window(self.kernel_size, stride, self.padding, ceil=self.ceil)

    @property
    def mixes(self) -> bool:
        return self.window.kernel != (1, 1)

    def check(self, shape: Shape, dim: int | None) -> None:
        small_padding(self.window)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return self.window.out_shape(shape, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        between = padded_shape(self.window, shape)
        return self.out_shape(shape, dim).elements + (between.elements if between != shape else 0)


class PaddedMaxPool2d(nn.MaxPool2d):
    """torch's pool of x_BCHW that pads as TensorFlow does: by the size of the map, perhaps on one side more."""

    def __init__(self, over: Window) -> None:
        super().__init__(over.kernel, stride=over.stride, ceil_mode=over.ceil)
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(padded(x, self.over, -float("inf")))
        return y


class PaddedAvgPool2d(nn.AvgPool2d):
    """torch's pool of x_BCHW that pads as TensorFlow does: by the size of the map, perhaps on one side more. The zeros
    count."""

    def __init__(self, over: Window) -> None:
        super().__init__(over.kernel, stride=over.stride, ceil_mode=over.ceil)
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(padded(x, self.over))
