"""The stem of patches: one convolution whose stride is its kernel."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import KernelSize, NormParam
from blockforge.blocks.layers import Conv2d, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.registry import stem


@stem("patch_embed")
class PatchEmbed(Stem):
    """A linear layer on each patch x patch square of the image, then a norm. A rest at the right or below
    that makes no whole patch is left out.

    Shape: x_BHWC -> y_B(H/patch)(W/patch)D, sizes rounded down.
    Cost: patch^2 * C * D multiply-adds an output position.
    Reference: An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929.
    """

    patch: KernelSize = 4
    """Side of a patch."""
    bias: bool = True
    """Bias of the convolution."""
    norm: NormParam = None
    """Norm after the convolution, or none."""

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return Shape(shape.height // self.patch, shape.width // self.patch, dim)

    def check(self, shape: Shape, dim: int) -> None:
        if self.norm is not None:
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        out = self.out_shape(shape, dim)
        held, kernel = {"read": shape.positions, "alive": out.elements}, (self.patch, self.patch)
        cost = primitives.conv(shape.dim, dim, kernel, out.positions, bias=self.bias, **held)
        return cost + (self.norm.cost(out) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        return out.elements + (self.norm.workspace(out) if self.norm is not None else 0)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = default_init(Conv2d(shape.dim, dim, self.patch, stride=self.patch, padding=0, bias=self.bias))
        norm = self.norm.build(self.out_shape(shape, dim)) if self.norm is not None else nn.Identity()
        return Maps(conv, norm)
