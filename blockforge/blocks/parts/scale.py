"""Learnt factors."""

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
    """A learnt factor for each channel, or one for the whole map, and a learnt term if asked for: what `scale` of a
    branch is.

    Shape: x_BHWC -> y_BHWC.
    Cost: a parameter a channel; with the term two, and a multiply-add an element. For the whole map 1 parameter or 2,
        and no multiply-adds.
    Reference: Going deeper with Image Transformers (LayerScale), https://arxiv.org/abs/2103.17239; for the whole map:
    as in PP-HGNetV2, the backbone of RT-DETR, https://arxiv.org/abs/2304.08069.
    """

    token_rule = "each"
    silent = frozenset({"per_channel"})

    init: InitialScale = 1.0
    """What all factors start at."""
    bias: bool = False
    """Whether there is a term, which starts at 0."""
    per_channel: bool | None = None
    """false: one factor, and one term, for all channels; absent: one for each."""

    def resolved(self, shape: Shape, dim: int | None) -> Scale:
        return self.model_copy(update={"per_channel": None}) if self.per_channel else self

    def as_filter(self, shape: Shape, dim: int | None) -> Filter | None:
        return None if self.per_channel is False else affine(shape.dim, bias=self.bias)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        if self.per_channel is False:
            return Cost(1 + self.bias)
        return Cost(2 * shape.dim, shape.elements) if self.bias else Cost(shape.dim)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return ScaleModule(shape.dim, self.init, self.bias, self.per_channel is not False)


class ScaleModule(nn.Module):
    """See `Scale`."""

    def __init__(self, dim: int, start: float, bias: bool, per_channel: bool = True) -> None:
        super().__init__()
        self.start, self.per_channel = start, per_channel
        self.weight = nn.Parameter(torch.empty(dim if per_channel else 1))
        self.bias = nn.Parameter(torch.empty(dim if per_channel else 1)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.start)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return x * self.weight
        if self.per_channel:
            return channel_affine(x, self.weight, self.bias)
        return torch.addcmul(self.bias, x, self.weight)

    def no_weight_decay(self) -> set[str]:
        return {name for name in ("weight", "bias") if getattr(self, name) is not None}
