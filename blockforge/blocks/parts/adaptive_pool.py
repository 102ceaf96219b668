"""Means over a grid of so many cells."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.base import Cost, Layout, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.sliding import Sides, pair


@part("adaptive_pool")
class AdaptivePool(Part):
    """The mean of each channel in every cell of a grid, whatever the map's size; cells of smaller maps overlap.

    Shape: x_BHWC -> a map of the size of the grid.
    Cost: no parameters and no multiply-adds.
    Reference: Pyramid Scene Parsing Network, CVPR 2017, https://arxiv.org/abs/1612.01105.
    """

    size: Sides = 1
    """Cells along the sides."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    @property
    def mixes(self) -> bool:
        return True

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(*pair(self.size), shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return nn.AdaptiveAvgPool2d(pair(self.size))
