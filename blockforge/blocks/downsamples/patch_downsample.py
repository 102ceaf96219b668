"""Downsampling by patches: one convolution whose stride is its kernel."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Downsample, Shape
from blockforge.blocks.fields import KernelSize, NormParam
from blockforge.blocks.layers import Conv2d, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.registry import downsample


@downsample("patch_downsample")
class PatchDownsample(Downsample):
    """A linear layer on each patch x patch square of the map, with a norm before or behind it if
    asked for. A rest at the right or below that makes no whole patch is left out.

    Shape: x_BHWC -> y_B(H/patch)(W/patch)D, sizes rounded down.
    Cost: patch^2 * C * D multiply-adds an output position.
    Reference: Strip-MLP, ICCV 2023, https://arxiv.org/abs/2307.11458; with a norm: A ConvNet for the 2020s,
    https://arxiv.org/abs/2201.03545.
    """

    patch: KernelSize = 2
    """Side of a patch."""
    bias: bool = True
    """Bias of the convolution."""
    pre_norm: NormParam = None
    """Norm before the convolution, or none."""
    norm: NormParam = None
    """Norm behind the convolution, or none."""

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return Shape(shape.height // self.patch, shape.width // self.patch, dim)

    def check(self, shape: Shape, dim: int) -> None:
        if self.pre_norm is not None:
            self.pre_norm.check(shape)
        if self.norm is not None:
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        out = self.out_shape(shape, dim)
        alive = out.elements + (shape.elements if self.pre_norm is not None else 0)
        held, kernel = {"read": shape.positions, "alive": alive}, (self.patch, self.patch)
        cost = primitives.conv(shape.dim, dim, kernel, out.positions, bias=self.bias, **held)
        if self.norm is not None:
            cost += self.norm.cost(out)
        return cost + (self.pre_norm.cost(shape) if self.pre_norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        peak = out.elements + (self.norm.workspace(out) if self.norm is not None else 0)
        if self.pre_norm is None:
            return peak
        return max(peak, self.pre_norm.workspace(shape), shape.elements + out.elements)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        pre_norm = self.pre_norm.build(shape) if self.pre_norm is not None else nn.Identity()
        norm = [self.norm.build(self.out_shape(shape, dim))] if self.norm is not None else []
        conv = default_init(Conv2d(shape.dim, dim, self.patch, stride=self.patch, padding=0, bias=self.bias))
        return Maps(pre_norm, conv, *norm)
