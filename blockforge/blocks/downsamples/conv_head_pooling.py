"""PiT's pooling: a depth-wise convolution of stride 2 that also widens, and a linear layer for the class token."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Downsample, Layout, Shape
from blockforge.blocks.layers import Conv2d, Linear, default_init
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.primitives import conv_size
from blockforge.blocks.registry import downsample
from blockforge.blocks.token_rows import apart, beside
from blockforge.blocks.tokens import refusal
from blockforge.errors import OpError

_KERNEL, _STRIDE = 3, 2


@downsample("conv_head_pooling")
class ConvHeadPooling(Downsample):
    """3x3 convolution of stride 2 with one group a channel; every channel gives D / C channels. The tokens beside the
    map take a linear layer.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded up; with E class tokens x_B1(E + HW)C -> y_B1(E + HW/4)D, only the H
        and W it was built for.
    Cost: 9 * D multiply-adds an output position, and C * D a class token.
    Raises: OpError if D is no multiple of C, or if class tokens are missing, or there and not asked for.
    Reference: Rethinking Spatial Dimensions of Vision Transformers (PiT), ICCV 2021,
    https://arxiv.org/abs/2103.16302, section 3.2.
    """

    token_rule = "own"

    class_token: bool = False
    """Whether class tokens stand beside the map."""

    def check(self, shape: Shape, dim: int) -> None:
        if dim % shape.dim:
            hint = f"as many channels as came in, or a multiple: {shape.dim} or {2 * shape.dim}"
            raise OpError(f"dim {dim} is no multiple of the {shape.dim} channels that come in", hint=hint)
        if shape.extra and not self.class_token:
            raise refusal(self.op, shape)
        if self.class_token and not shape.extra:
            hint = "a vit_stem with a class token gives one, and add_tokens"
            raise OpError(f"there is no class token beside {shape}", hint=hint, param="class_token", code="tokens")

    def patches(self, shape: Shape, dim: int) -> Shape:
        """What the convolution gives."""
        height, width = (conv_size(side, _KERNEL, _STRIDE, _KERNEL // 2) for side in (shape.height, shape.width))
        return Shape(height, width, dim)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return self.patches(shape, dim)._replace(extra=shape.extra)

    @property
    def layout(self) -> Layout:
        return "NHWC" if self.class_token else "NCHW"

    def total_stride(self, shape: Shape, dim: int) -> int:
        return _STRIDE

    def cost(self, shape: Shape, dim: int) -> Cost:
        positions = self.patches(shape, dim).positions
        cost = primitives.conv(shape.dim, dim, (_KERNEL, _KERNEL), positions, groups=shape.dim)
        return cost + primitives.linear(shape.dim, dim, shape.extra) if self.class_token else cost

    def workspace(self, shape: Shape, dim: int) -> int:
        patches, out = self.patches(shape, dim).elements, self.out_shape(shape, dim).elements
        return shape.extra * dim + patches + out if self.class_token else out

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = default_init(Conv2d(shape.dim, dim, _KERNEL, stride=_STRIDE, groups=shape.dim))
        return TokenPooling(conv, Linear(shape.dim, dim), shape) if self.class_token else conv


class TokenPooling(nn.Module):
    """See `ConvHeadPooling`: the convolution on the map, the linear layer on the tokens beside it."""

    def __init__(self, conv: nn.Module, fc: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.conv, self.fc = conv, fc
        self.extra, self.size = shape.extra, (shape.height, shape.width)

    def forward(self, x_B1LC: Tensor) -> Tensor:
        tokens, x = apart(x_B1LC, self.extra, self.size, "conv_head_pooling")
        return beside(self.fc(tokens), on_nchw(self.conv, x))
