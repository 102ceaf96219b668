"""The sum as a join."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Aggregator, Cost, Shape
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import aggregator
from blockforge.errors import OpError


@aggregator("sum")
class Sum(Aggregator):
    """The layer's input plus its sources; through a linear layer where another width is asked for.

    Shape: x_BHWC and sources_BHWC -> y_BHWD.
    Cost: C * D multiply-adds a position if D is not C, else none.
    Raises: OpError if a source is not as wide as the input.
    Reference: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
    """

    def check(self, shape: Shape, sources: tuple[int, ...], dim: int) -> None:
        if other := next((s for s in sources if s != shape.dim), None):
            text = f"a source of width {other} cannot be added to a map of width {shape.dim}"
            raise OpError(text, hint="concat and dmca take any widths")

    def cost(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Cost:
        return primitives.linear(shape.dim, dim, shape.positions) if dim != shape.dim else Cost()

    def workspace(self, shape: Shape, sources: tuple[int, ...], dim: int) -> int:
        adding = 2 * shape.elements if len(sources) > 1 else shape.elements
        return max(adding, (shape.dim + dim) * shape.positions if dim != shape.dim else 0)

    def build(self, shape: Shape, sources: tuple[int, ...], dim: int) -> nn.Module:
        return SumModule(shape.dim, dim)


class SumModule(nn.Module):
    """See `Sum`."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = Linear(width, dim) if dim != width else nn.Identity()

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        for source in sources:
            x = x + source
        return self.proj(x)
