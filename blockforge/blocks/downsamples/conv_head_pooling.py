"""PiT's pooling: a depth-wise convolution of stride 2 that also widens, and a linear layer for the class token."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Downsample, Layout, Shape, Tokens
from blockforge.blocks.layers import Conv2d, Linear, default_init, same_size
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.primitives import conv_size
from blockforge.blocks.registry import downsample
from blockforge.errors import OpError

_KERNEL, _STRIDE = 3, 2


@downsample("conv_head_pooling")
class ConvHeadPooling(Downsample):
    """3x3 convolution of stride 2 with one group a channel; every channel gives D / C channels. With a class token
    the map is a row, that token first and then the patches of a square map: the token takes a linear layer, the
    patches the convolution.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded up; with a class token x_B1(1 + S^2)C -> y_B1(1 + (S/2)^2)D, only
        the S it was built for.
    Cost: 9 * D multiply-adds an output position, and C * D for the class token.
    Raises: OpError if D is no multiple of C, or behind the class token there are no patches of a square map.
    Reference: Rethinking Spatial Dimensions of Vision Transformers (PiT), ICCV 2021,
    https://arxiv.org/abs/2103.16302, section 3.2.
    """

    class_token: bool = False
    """The map is a row of tokens with a class token first."""

    def check(self, shape: Shape, dim: int) -> None:
        if dim % shape.dim:
            hint = f"as many channels as came in, or a multiple: {shape.dim} or {2 * shape.dim}"
            raise OpError(f"dim {dim} is no multiple of the {shape.dim} channels that come in", hint=hint)
        if self.class_token and (shape.height != 1 or shape.width < 2 or self.side(shape) ** 2 != shape.width - 1):
            hint = "a vit_stem with a class token makes such a row of a square image"
            text = f"a map of {shape.height} x {shape.width} is no row of a class token and a square map's patches"
            raise OpError(text, hint=hint, param="class_token")

    def side(self, shape: Shape) -> int:
        """Of the square that a row's patches make."""
        return math.isqrt(shape.width - 1)

    def patches(self, shape: Shape, dim: int) -> Shape:
        """What the convolution gives."""
        sides = (self.side(shape),) * 2 if self.class_token else (shape.height, shape.width)
        height, width = (conv_size(side, _KERNEL, _STRIDE, _KERNEL // 2) for side in sides)
        return Shape(height, width, dim)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        patches = self.patches(shape, dim)
        return Shape(1, 1 + patches.positions, dim) if self.class_token else patches

    @property
    def layout(self) -> Layout:
        return "NHWC" if self.class_token else "NCHW"

    def total_stride(self, shape: Shape, dim: int) -> int:
        return _STRIDE

    def tokens(self, shape: Shape, dim: int) -> Tokens | None:
        return Tokens(1, *self.patches(shape, dim)[:2]) if self.class_token else None

    def cost(self, shape: Shape, dim: int) -> Cost:
        positions = self.patches(shape, dim).positions
        cost = primitives.conv(shape.dim, dim, (_KERNEL, _KERNEL), positions, groups=shape.dim)
        return cost + primitives.linear(shape.dim, dim, 1) if self.class_token else cost

    def workspace(self, shape: Shape, dim: int) -> int:
        patches, out = self.patches(shape, dim).elements, self.out_shape(shape, dim).elements
        return dim + patches + out if self.class_token else out

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = default_init(Conv2d(shape.dim, dim, _KERNEL, stride=_STRIDE, groups=shape.dim))
        return TokenPooling(conv, Linear(shape.dim, dim), self.side(shape)) if self.class_token else conv


class TokenPooling(nn.Module):
    """See `ConvHeadPooling`: the convolution on the patches, the linear layer on the token before them."""

    def __init__(self, conv: nn.Module, fc: nn.Module, side: int) -> None:
        super().__init__()
        self.conv, self.fc, self.side = conv, fc, side

    def forward(self, x_B1LC: Tensor) -> Tensor:
        same_size(x_B1LC, (1, 1 + self.side**2), "conv_head_pooling")
        token, patches = x_B1LC[:, :, :1], x_B1LC[:, 0, 1:]
        pooled = on_nchw(self.conv, rearrange(patches, "b (h w) c -> b h w c", h=self.side))
        return torch.cat([self.fc(token), rearrange(pooled, "b h w c -> b 1 (h w) c")], dim=2)
