"""A transposed convolution."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Layout, Shape, divisible
from blockforge.blocks.fields import KernelSize, Width
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("conv_transpose")
class ConvTranspose(Part):
    """A transposed convolution, which makes a map `stride` times as large: each position gives a patch of
    `kernel_size`, and where patches overlap they are added. It gives the width that it is asked for, else the one that
    it reads.

    Of a kernel larger than the stride as much is cut off at each side as makes the map exactly `stride` times as large,
    one more above and left where that is odd (torch's `padding` and `output_padding`).

    Shape: x_BHWC -> y_B(H stride)(W stride)D.
    Cost: kernel_size^2 * C / groups * D multiply-adds a position of x.
    Raises: OpError if the kernel is smaller than the stride, or cannot be cut so; if the groups do not divide the
        widths.
    Reference: A guide to convolution arithmetic for deep learning, https://arxiv.org/abs/1603.07285; U-Net, MICCAI
    2015, https://arxiv.org/abs/1505.04597.
    """

    kernel_size: KernelSize = 2
    """Side of the kernel."""
    stride: Annotated[int, Field(ge=1, le=32)] = 2
    """How many times as long the sides become."""
    groups: Width = 1
    """Groups of channels that do not see each other."""
    bias: bool | None = None
    """Whether there is a bias; absent: yes, but directly before a norm that needs none."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    @property
    def mixes(self) -> bool:
        return self.kernel_size > self.stride

    @property
    def has_bias(self) -> bool:
        return self.bias is not False

    def before_norm(self) -> ConvTranspose:
        return self.model_copy(update={"bias": False}) if self.bias is None else self

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.kernel_size < self.stride:
            text = f"a kernel of {self.kernel_size} leaves holes at stride {self.stride}"
            raise OpError(text, hint=f"at least {self.stride}", param="kernel_size")
        if self.stride == 1 and self.kernel_size % 2 == 0:
            text = f"an even kernel, {self.kernel_size}, does not keep the map's size"
            raise OpError(text, hint=f"{self.kernel_size + 1} does", param="kernel_size")
        divisible(shape.dim, self.groups, "channels", "groups", "groups")
        divisible(dim or shape.dim, self.groups, "dim", "groups", "groups")

    def resolved(self, shape: Shape, dim: int | None) -> ConvTranspose:
        return self.model_copy(update={"bias": self.has_bias})

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(shape.height * self.stride, shape.width * self.stride, dim or shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        out = dim or shape.dim
        weights = shape.dim // self.groups * out * self.kernel_size**2
        return Cost(weights + self.has_bias * out, weights * shape.positions)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return ConvTranspose2d(
            shape.dim, dim or shape.dim, self.kernel_size, self.stride, groups=self.groups, bias=self.has_bias
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of x_BCHW that gives y_BD(H stride)(W stride), channels-last. Weights start as a normal
    of variance 2 / (values that add up to one)."""

    def __init__(self, in_chs: int, out_chs: int, kernel_size: int, stride: int, *, groups: int, bias: bool) -> None:
        beyond = kernel_size - stride  # torch cuts off the same on both sides, and leaves one below and right after all
        super().__init__(in_chs, out_chs, kernel_size, stride, -(-beyond // 2), beyond % 2, groups, bias)

    def reset_parameters(self) -> None:
        added = self.weight[:, 0].numel() // self.groups / math.prod(self.stride)
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / max(added, 1.0)))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        y = super().forward(x, output_size)
        return y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # which it is on a CPU
