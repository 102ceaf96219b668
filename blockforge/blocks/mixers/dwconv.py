"""Depth-wise convolution as a token mixer."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Layout, Mixer, Shape
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.layers import ConvInit, DWConv
from blockforge.blocks.registry import mixer


@mixer("dwconv")
class DepthwiseConv(Mixer):
    """Depth-wise convolution: one filter a channel. As the branch `{op: dwconv, norm: none, drop_path: false}`
    it is the positional convolution of SparX and VSSD.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: H * W * dim * kernel_size^2 multiply-adds; dim * (kernel_size^2 + 1) parameters.
    Reference: Conditional Positional Encodings, https://arxiv.org/abs/2102.10882.
    """

    residual: ClassVar[bool] = True

    kernel_size: OddKernel = 3
    """Side of the kernel."""
    bias: bool = True
    """Bias of the convolution."""
    init: ConvInit = "fan_out"
    """How the weights start: a normal of variance 2 / fan_out, or one of deviation 0.02."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def cost(self, shape: Shape) -> Cost:
        return primitives.dwconv(shape.dim, (self.kernel_size, self.kernel_size), shape.positions, bias=self.bias)

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return DWConv(shape.dim, self.kernel_size, bias=self.bias, init=self.init)
