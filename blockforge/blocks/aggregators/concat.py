"""DenseNet's join: concatenate, then a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Aggregator, Cost, Shape
from blockforge.blocks.joins.concat import ConcatJoin
from blockforge.blocks.joins.meeting import Resize
from blockforge.blocks.layers import Linear
from blockforge.blocks.part import Join
from blockforge.blocks.registry import aggregator


@aggregator("concat")
class Concat(Aggregator):
    """The layer's input and its sources side by side, through a 1x1 convolution to the width asked for.
    As a `join` that is asked for no width, or for that of the maps together, it has no convolution.

    Shape: x_BHWC and sources_BHW* -> y_BHWD.
    Cost: D * (C + the sources' widths) multiply-adds a position.
    Reference: Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993.
    """

    token_rule = "each"

    resize: Resize | None = None
    """As a `join`, how maps come to the size of the first one; absent: they have one size."""

    def as_join(self) -> Join:
        return ConcatJoin(resize=self.resize)

    def cost(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Cost:
        return primitives.linear(shape.dim + sum(sources), dim, shape.positions)

    def workspace(self, shape: Shape, sources: tuple[int, ...], dim: int) -> int:
        return shape.positions * (shape.dim + sum(sources) + dim)

    def build(self, shape: Shape, sources: tuple[int, ...], dim: int) -> nn.Module:
        return ConcatModule(shape.dim + sum(sources), dim)


class ConcatModule(nn.Module):
    """See `Concat`."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = Linear(in_dim, dim)

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        return self.proj(torch.cat([x, *sources], dim=-1))
