"""A stem of one convolution over patches, with its norms and activation."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import ActParam, KernelSize, NormParam
from blockforge.blocks.layers import Conv2d, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.registry import stem


@stem("patch_stem")
class PatchStem(Stem):
    """Convolution of non-overlapping patches without bias, BatchNorm, activation, norm: the plain stem that
    VSSD's ablation compares its own with.

    Shape: x_BHWC -> y_B(H/patch)(W/patch)D, sizes rounded down.
    Cost: patch^2 * C * D multiply-adds an output position.
    Reference: VSSD, https://arxiv.org/abs/2407.18559, table 5.
    """

    patch: KernelSize = 4
    """Side of a patch."""
    act: ActParam = ReLU()
    """Activation after the BatchNorm."""
    norm: NormParam = None
    """Norm at the end, or none."""

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return Shape(shape.height // self.patch, shape.width // self.patch, dim)

    def check(self, shape: Shape, dim: int) -> None:
        if self.norm is not None:
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        out = self.out_shape(shape, dim)
        held, kernel = {"read": shape.positions, "alive": out.elements}, (self.patch, self.patch)
        cost = primitives.conv(shape.dim, dim, kernel, out.positions, bias=False, **held)
        cost += primitives.norm(dim) + self.act.cost(out)
        return cost + (self.norm.cost(out) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        return out.elements + max(out.elements, self.act.beside(out))

    def build(self, shape: Shape, dim: int) -> nn.Module:
        conv = default_init(Conv2d(shape.dim, dim, self.patch, stride=self.patch, padding=0, bias=False))
        out = self.out_shape(shape, dim)
        norm = self.norm.build(out) if self.norm is not None else nn.Identity()
        return Maps(conv, nn.BatchNorm2d(dim), self.act.build(out), norm)
