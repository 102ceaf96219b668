"""The stem of overlapping patches: one convolution whose kernel is larger than its stride."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import KernelSize, NormParam
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import stem


@stem("overlap_embed")
class OverlapEmbed(Stem):
    """A strided convolution, then a norm.

    Shape: x_BHWC -> y_B((H + 2 padding - kernel_size)/stride + 1)(likewise W)D, quotients rounded down.
    Cost: kernel_size^2 * C * D multiply-adds an output position.
    Reference: MetaFormer Is Actually What You Need for Vision, CVPR 2022, https://arxiv.org/abs/2111.11418.
    """

    kernel_size: KernelSize = 7
    """Side of the kernel."""
    stride: KernelSize = 4
    """Stride of the convolution."""
    padding: Annotated[int, Field(ge=0, le=99)] | None = None
    """Zeros around the image; absent: half the kernel, rounded down."""
    bias: bool = True
    """Bias of the convolution."""
    norm: NormParam = None
    """Norm after the convolution, or none."""

    @property
    def pad(self) -> int:
        """Zeros on each side."""
        return self.kernel_size // 2 if self.padding is None else self.padding

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return conv_shape(shape, dim, self.kernel_size, self.stride, self.pad)

    def check(self, shape: Shape, dim: int) -> None:
        if self.norm is not None:
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        out, kernel = self.out_shape(shape, dim), (self.kernel_size, self.kernel_size)
        cost = primitives.conv(
            shape.dim, dim, kernel, out.positions, read=shape.positions, alive=out.elements, bias=self.bias
        )
        return cost + (self.norm.cost(out) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        padded = out.positions * shape.dim * (self.kernel_size == 1 and self.pad > 0)  # of one position's kernel
        return out.elements + max(padded, self.norm.workspace(out) if self.norm is not None else 0)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        side, stride, pad = self.kernel_size, self.stride, self.pad
        conv = Conv2d(shape.dim, dim, side, stride=stride, padding=pad, bias=self.bias, init="trunc_normal")
        norm = self.norm.build(self.out_shape(shape, dim)) if self.norm is not None else nn.Identity()
        return Maps(conv, norm)
