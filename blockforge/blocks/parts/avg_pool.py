"""The mean under a kernel."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.base import Shape
from blockforge.blocks.pooling import PaddedAvgPool2d, Pool
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("avg_pool")
class AvgPool(Pool):
    """The mean of each channel under a kernel.

    Shape: x_BHWC -> y_BHWC, sizes by kernel, stride and padding.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if the padding is more than half the kernel, or is TensorFlow's and does not count.
    """

    count_include_pad: bool = True
    """Whether the zeros of the padding count; else the mean is that of the map's positions."""

    def check(self, shape: Shape, dim: int | None) -> None:
        super().check(shape, dim)
        if self.window.padding is None and not self.count_include_pad:
            hint = "padding: same, or count_include_pad: true"
            raise OpError("zeros of padding tf count", hint=hint, param="count_include_pad")

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        over, counted = self.window, self.count_include_pad
        if over.padding is None:
            return PaddedAvgPool2d(over)
        return nn.AvgPool2d(over.kernel, over.stride, over.padding, ceil_mode=over.ceil, count_include_pad=counted)
