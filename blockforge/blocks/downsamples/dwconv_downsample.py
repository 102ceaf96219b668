"""A depth-wise strided convolution: Strip-MLP's long skips."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Downsample, Layout, Shape
from blockforge.blocks.layers import Conv2d, default_init
from blockforge.blocks.registry import downsample
from blockforge.errors import OpError


@downsample("dwconv_downsample")
class DWConvDownsample(Downsample):
    """2x2 convolution of stride 2 with one group a channel, without bias; every channel gives D / C channels.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded down, D a multiple of C.
    Cost: 4 * D multiply-adds an output position.
    Raises: OpError if D is no multiple of C.
    Reference: Strip-MLP, ICCV 2023, https://arxiv.org/abs/2307.11458.
    """

    def check(self, shape: Shape, dim: int) -> None:
        if dim % shape.dim:
            hint = f"as many channels as came in, or twice: {shape.dim} or {2 * shape.dim}"
            raise OpError(f"dim {dim} is no multiple of the {shape.dim} channels that come in", hint=hint)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return Shape(shape.height // 2, shape.width // 2, dim)

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def cost(self, shape: Shape, dim: int) -> Cost:
        positions = self.out_shape(shape, dim).positions
        return primitives.conv(shape.dim, dim, (2, 2), positions, groups=shape.dim, bias=False)

    def workspace(self, shape: Shape, dim: int) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int) -> nn.Module:
        return default_init(Conv2d(shape.dim, dim, 2, stride=2, padding=0, groups=shape.dim, bias=False))
