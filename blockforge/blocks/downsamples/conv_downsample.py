"""A strided convolution between stages."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.acts.identity import Identity
from blockforge.blocks.base import Cost, Downsample, Shape
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import row
from blockforge.blocks.fields import ActParam, NormParam, OddKernel
from blockforge.blocks.layers import Conv2d, ConvInit
from blockforge.blocks.maps import Maps
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import downsample


@downsample("conv_downsample")
class ConvDownsample(Downsample):
    """Convolution of stride 2, activation if asked for, then a norm.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded up.
    Cost: kernel_size^2 * C * D multiply-adds an output position.
    Reference: Scale-Aware Modulation Meet Transformer, ICCV 2023, https://arxiv.org/abs/2307.08579.
    """

    kernel_size: OddKernel = 3
    """Side of the kernel."""
    act: ActParam = Identity()
    """Activation after the convolution."""
    norm: NormParam = None
    """Norm after the convolution, or none."""
    bias: bool | None = None
    """Bias of the convolution; absent: only where the norm that follows asks for one (a layer_norm does)."""
    init: ConvInit = "fan_out"
    """How the weights start: a normal of variance 2 / fan_out, or one of deviation 0.02."""

    @property
    def has_bias(self) -> bool:
        if self.bias is not None:
            return self.bias
        return self.norm is not None and self.norm.bias_before

    @property
    def _conv(self) -> Conv:
        return Conv(kernel_size=self.kernel_size, stride=2, padding=self.kernel_size // 2, bias=self.has_bias)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return conv_shape(shape, dim, self.kernel_size, 2)

    def check(self, shape: Shape, dim: int) -> None:
        if self.norm is not None:
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        out = self.out_shape(shape, dim)
        return (
            self._conv.cost(shape, dim)
            + self.act.cost(out)
            + (self.norm.cost(out) if self.norm is not None else Cost())
        )

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        behind = max(self.act.beside(out), self.norm.workspace(out) if self.norm is not None else 0)
        return max(self._conv.workspace(shape, dim), out.elements + behind)

    def as_program(self, shape: Shape, dim: int) -> Program:
        act = [self.act] if self.act != Identity() else []
        return row(shape, (self._conv, dim), *act, self.norm)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = Conv2d(shape.dim, dim, self.kernel_size, stride=2, bias=self.has_bias, init=self.init)
        out = self.out_shape(shape, dim)
        norm = self.norm.build(out) if self.norm is not None else nn.Identity()
        act = [self.act.build(out)] if self.act != Identity() else []
        return Maps(conv, *act, norm)
