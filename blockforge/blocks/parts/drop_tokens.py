"""A map without the tokens beside it."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import copied
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.token_rows import apart
from blockforge.errors import OpError


@part("drop_tokens")
class DropTokens(Part):
    """The map alone. It is copied: what reads it wants its positions one behind the other in memory.

    Shape: x_B1(E + L)C -> y_BHWC, L = H * W.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if there are no tokens.
    """

    token_rule = "own"

    def check(self, shape: Shape, dim: int | None) -> None:
        check_tokens(shape)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(extra=0)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return DropTokensModule(shape)


class DropTokensModule(nn.Module):
    """See `DropTokens`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.extra, self.size = shape.extra, (shape.height, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return copied(apart(x, self.extra, self.size, "drop_tokens")[1])

    def extra_repr(self) -> str:
        return f"extra={self.extra}, size={self.size}"


def check_tokens(shape: Shape) -> None:
    """Raises: OpError unless there are tokens beside a map."""
    if not shape.extra:
        raise OpError(f"there are no tokens beside {shape}", hint="add_tokens puts some there", code="tokens")
