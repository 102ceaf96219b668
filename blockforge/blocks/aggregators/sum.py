"""The sum of maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Aggregator, Cost, Shape
from blockforge.blocks.joins.meeting import Resize
from blockforge.blocks.joins.sum import SumJoin, WeightedSumJoin, Weights, check_weights
from blockforge.blocks.layers import Linear
from blockforge.blocks.part import Join
from blockforge.blocks.registry import aggregator
from blockforge.errors import OpError


class Adding(Aggregator):
    """What the sums have in common: sources as wide as the input, and a linear layer to another width."""

    token_rule = "each"

    def check(self, shape: Shape, sources: tuple[int, ...], dim: int) -> None:
        if other := next((s for s in sources if s != shape.dim), None):
            text = f"a source of width {other} cannot be added to a map of width {shape.dim}"
            raise OpError(text, hint="concat and dmca take any widths")

    def cost(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Cost:
        return primitives.linear(shape.dim, dim, shape.positions) if dim != shape.dim else Cost()

    def workspace(self, shape: Shape, sources: tuple[int, ...], dim: int) -> int:
        adding = 2 * shape.elements if len(sources) > 1 else shape.elements
        return max(adding, (shape.dim + dim) * shape.positions if dim != shape.dim else 0)


@aggregator("sum")
class Sum(Adding):
    """The layer's input plus its sources; through a linear layer where another width is asked for.
    As a `join` it is the sum alone, and broadcasts sides and widths of 1.

    Shape: x_BHWC and sources_BHWC -> y_BHWD.
    Cost: C * D multiply-adds a position if D is not C, else none.
    Raises: OpError if a source is not as wide as the input, or if there is another number of weights than of maps.
    Reference: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
    """

    weights: Weights | None = None
    """A fixed factor for each map, the input's first: [1, -1] is a difference; absent: 1 for all."""
    resize: Resize | None = None
    """As a `join`, how maps come to the size of the first one; absent: they have one size."""

    def as_join(self) -> Join:
        if self.weights is None:
            return SumJoin(resize=self.resize)
        return WeightedSumJoin(resize=self.resize, weights=self.weights)

    def check(self, shape: Shape, sources: tuple[int, ...], dim: int) -> None:
        super().check(shape, sources, dim)
        if self.weights is not None:
            check_weights(self.weights, 1 + len(sources))

    def workspace(self, shape: Shape, sources: tuple[int, ...], dim: int) -> int:
        scaled = 2 * shape.elements if self.weights is not None and self.weights[0] != 1 else 0
        return max(scaled, super().workspace(shape, sources, dim))

    def build(self, shape: Shape, sources: tuple[int, ...], dim: int) -> nn.Module:
        return SumModule(shape.dim, dim, self.weights)


class SumModule(nn.Module):
    """See `Sum`."""

    def __init__(self, width: int, dim: int, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.proj = Linear(width, dim) if dim != width else nn.Identity()

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        first, *others = self.weights or (1.0,) * (1 + len(sources))
        x = x if first == 1 else x * first
        for source, weight in zip(sources, others, strict=True):
            x = torch.add(x, source, alpha=weight)
        return self.proj(x)
