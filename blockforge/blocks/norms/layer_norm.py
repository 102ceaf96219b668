"""Layer normalisation over channels."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Norm, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.registry import norm


@norm("layer_norm")
class LayerNorm(Norm):
    """Layer normalisation over the channels of each position.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 * dim parameters, dim without a bias; elementwise work counts no multiply-adds.
    Reference: Layer Normalization, https://arxiv.org/abs/1607.06450.
    """

    token_rule = "each"
    silent = frozenset({"bias"})

    bias_before: ClassVar[bool] = True

    eps: Eps = 1e-5
    """Added to the variance."""
    bias: bool | None = None
    """false: a learnt scale alone; absent: a scale and a bias."""

    def cost(self, shape: Shape) -> Cost:
        return primitives.norm(shape.dim) if self.bias is not False else Cost(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements + 2 * shape.positions  # the mean and the deviation

    def build(self, shape: Shape) -> nn.Module:
        return nn.LayerNorm(shape.dim, eps=self.eps, bias=self.bias is not False)
