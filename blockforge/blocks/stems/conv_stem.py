"""SMT's stem: two convolutions, a quarter of the image's side."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import stem


@stem("conv_stem")
class ConvStem(Stem):
    """Convolution of stride 2, BatchNorm, ReLU, 2x2 convolution of stride 2, LayerNorm.

    Shape: x_BHWC -> y_B(H/4)(W/4)D.
    Cost: kernel_size^2 * C * D multiply-adds at half size, 4 * D^2 at quarter size.
    Reference: Scale-Aware Modulation Meet Transformer, ICCV 2023, https://arxiv.org/abs/2307.08579.
    """

    kernel_size: OddKernel = 3
    """Side of the first kernel."""

    def half(self, shape: Shape, dim: int) -> Shape:
        """The map after the first convolution."""
        return conv_shape(shape, dim, self.kernel_size, 2)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        half = self.half(shape, dim)
        return Shape(half.height // 2, half.width // 2, dim)

    def cost(self, shape: Shape, dim: int) -> Cost:
        half, out = self.half(shape, dim), self.out_shape(shape, dim)
        kernel = (self.kernel_size, self.kernel_size)
        first = {"read": shape.positions, "alive": half.elements}
        second = {"read": half.positions, "alive": half.elements + out.elements}
        cost = primitives.conv(shape.dim, dim, kernel, half.positions, bias=False, **first) + primitives.norm(dim)
        return cost + primitives.conv(dim, dim, (2, 2), out.positions, bias=True, **second) + primitives.norm(dim)

    def workspace(self, shape: Shape, dim: int) -> int:
        return 2 * self.half(shape, dim).elements

    def build(self, shape: Shape, dim: int) -> nn.Module:
        return Maps(
            Conv2d(shape.dim, dim, self.kernel_size, stride=2, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            Conv2d(dim, dim, 2, stride=2, padding=0),
            nn.LayerNorm(dim),
        )
