"""The maximum under a kernel."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.base import Shape
from blockforge.blocks.pooling import PaddedMaxPool2d, Pool
from blockforge.blocks.registry import part


@part("max_pool")
class MaxPool(Pool):
    """The maximum of each channel under a kernel; padding is never the maximum.

    Shape: x_BHWC -> y_BHWC, sizes by kernel, stride and padding.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if the padding is more than half the kernel.
    """

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return (
            super().workspace(shape, dim) + 2 * self.out_shape(shape, dim).elements
        )  # torch notes each maximum's place

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        over = self.window
        if over.padding is None:
            return PaddedMaxPool2d(over)
        return nn.MaxPool2d(over.kernel, stride=over.stride, padding=over.padding, ceil_mode=over.ceil)
