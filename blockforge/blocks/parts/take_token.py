"""The tokens beside a map without it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import copied
from blockforge.blocks.part import Part
from blockforge.blocks.parts.drop_tokens import check_tokens
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("take_token")
class TakeToken(Part):
    """One of the tokens beside the map, or all, as a map of one row. They are copied: a view would keep the row.

    Shape: x_B1(E + L)C -> y_B11C, or y_B1EC.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if there are no tokens, or fewer.
    """

    token_rule = "own"

    index: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Which one, counted from 0; absent: all."""

    def check(self, shape: Shape, dim: int | None) -> None:
        check_tokens(shape)
        if self.index is not None and self.index >= shape.extra:
            text = f"index {self.index} is behind the {shape.extra} tokens of {shape}"
            hint = f"0 to {shape.extra - 1}" if shape.extra > 1 else "0"
            raise OpError(text, hint=hint, param="index", code="tokens")

    def resolved(self, shape: Shape, dim: int | None) -> TakeToken:
        return TakeToken() if shape.extra == 1 else self

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(1, shape.extra if self.index is None else 1, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        first = self.index or 0
        return TakeTokenModule(first, first + self.out_shape(shape, dim).width)


class TakeTokenModule(nn.Module):
    """See `TakeToken`."""

    def __init__(self, first: int, end: int) -> None:
        super().__init__()
        self.first, self.end = first, end

    def forward(self, x: Tensor) -> Tensor:
        return copied(x[:, :, self.first : self.end])

    def extra_repr(self) -> str:
        return f"first={self.first}, end={self.end}"
