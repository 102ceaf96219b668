"""ResNet's stem: a strided convolution and a strided pooling."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import ActParam, OddKernel
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import stem


@stem("conv_pool_stem")
class ConvPoolStem(Stem):
    """Convolution of stride 2 without bias, BatchNorm, activation, 3x3 max pooling of stride 2.

    Shape: x_BHWC -> y_B(H/4)(W/4)D, sizes rounded up.
    Cost: kernel_size^2 * C * D multiply-adds at half size.
    Reference: Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385.
    """

    kernel_size: OddKernel = 7
    """Side of the convolution's kernel."""
    act: ActParam = ReLU()
    """Activation."""

    def half(self, shape: Shape, dim: int) -> Shape:
        """The map behind the convolution."""
        return conv_shape(shape, dim, self.kernel_size, 2)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return conv_shape(self.half(shape, dim), dim, 3, 2)

    def cost(self, shape: Shape, dim: int) -> Cost:
        kernel, half = (self.kernel_size, self.kernel_size), self.half(shape, dim)
        held = {"read": shape.positions, "alive": half.elements}
        cost = primitives.conv(shape.dim, dim, kernel, half.positions, bias=False, **held)
        return cost + primitives.norm(dim) + self.act.cost(half)

    def workspace(self, shape: Shape, dim: int) -> int:
        half = self.half(shape, dim)
        return half.elements + max(half.elements, self.act.beside(half))

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = Conv2d(shape.dim, dim, self.kernel_size, stride=2, bias=False)
        act = self.act.build(self.half(shape, dim))
        return Maps(conv, nn.BatchNorm2d(dim), act, nn.MaxPool2d(3, stride=2, padding=1))
