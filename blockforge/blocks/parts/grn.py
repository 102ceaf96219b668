"""Global response normalisation as a part."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.ffns.grn_mlp import GRN
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part


@part("grn")
class GRNPart(Part):
    """Every channel times its response, the norm over positions divided by the mean of all channels', with learnt
    factors and terms, beside the map itself.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 parameters a channel; no multiply-adds.
    Reference: ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808.
    """

    token_rule = "all"

    @property
    def mixes(self) -> bool:
        return True

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return primitives.norm(shape.dim)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements + 2 * shape.dim

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return GRN(shape.dim)
