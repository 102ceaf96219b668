"""A larger map around a map."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

Rows = Annotated[int, Field(ge=0, le=99)]


@part("pad")
class Pad(Part):
    """Zeros around the map, for each side its own number of them. A `conv` pads by itself, both sides alike; here the
    sides may differ, and what follows reads the zeros as it reads the map: a `max_pool` too.

    Shape: x_BHWC -> y_B(top + H + bottom)(left + W + right)C.
    Cost: no parameters and no multiply-adds.
    """

    mixes: ClassVar[bool] = True

    top: Rows = 0
    """Rows above."""
    bottom: Rows = 0
    """Rows below."""
    left: Rows = 0
    """Columns before the first."""
    right: Rows = 0
    """Columns behind the last."""

    @property
    def is_empty(self) -> bool:
        return not (self.top or self.bottom or self.left or self.right)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(self.top + shape.height + self.bottom, self.left + shape.width + self.right, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return 0 if self.is_empty else self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return nn.Identity() if self.is_empty else PadModule(self.top, self.bottom, self.left, self.right)


class PadModule(nn.Module):
    """See `Pad`."""

    def __init__(self, top: int, bottom: int, left: int, right: int) -> None:
        super().__init__()
        self.top, self.bottom, self.left, self.right = top, bottom, left, right

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, self.left, self.right, self.top, self.bottom))

    def extra_repr(self) -> str:
        return f"top={self.top}, bottom={self.bottom}, left={self.left}, right={self.right}"
