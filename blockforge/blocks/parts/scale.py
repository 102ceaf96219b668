"""A learnt factor for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.filters import Filter, affine
from blockforge.blocks.layers import channel_affine
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.spec.fields import InitialScale


@part("scale")
class Scale(Part):
    """A learnt factor for each channel, and a learnt term if asked for: what `scale` of a branch is.

    Shape: x_BHWC -> y_BHWC.
    Cost: a parameter a channel; with the term two, and a multiply-add an element.
    Reference: Going deeper with Image Transformers (LayerScale), https://arxiv.org/abs/2103.17239.
    """

    token_rule = "each"

    init: InitialScale = 1.0
    """What all factors start at."""
    bias: bool = False
    """Whether there is a term, which starts at 0."""

    def as_filter(self, shape: Shape, dim: int | None) -> Filter:
        return affine(shape.dim, bias=self.bias)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost(2 * shape.dim, shape.elements) if self.bias else Cost(shape.dim)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return ScaleModule(shape.dim, self.init, self.bias)


class ScaleModule(nn.Module):
    """See `Scale`."""

    def __init__(self, dim: int, start: float, bias: bool) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.start)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if self.bias is None else channel_affine(x, self.weight, self.bias)

    def no_weight_decay(self) -> set[str]:
        return {name for name in ("weight", "bias") if getattr(self, name) is not None}
