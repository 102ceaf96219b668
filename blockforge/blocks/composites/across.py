"""An op on a map that lies on its side."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.layers import copied, same_size
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.tokens import refusal, refusal_inside
from blockforge.errors import OpError

Axis = Literal["positions", "rows", "columns"]


@part("across")
class Across(Composite):
    """The op sees an axis of the map as its channels: `[linear]` then mixes all positions alike for every channel, as
    MLP-Mixer does, or the rows of a column, or the columns of a row.

    Shape: x_BHWC -> y_BHWC. For `positions` the op reads a map of 1xC positions and H * W channels, for `rows` one of
        CxW positions and H channels, for `columns` one of HxC positions and W channels; it must give as many.
    Reference: MLP-Mixer, https://arxiv.org/abs/2105.01601.
    """

    of: Bound = Bound("identity")
    """The op."""
    axis: Axis = "positions"
    """Which axis its channels are."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        shape = build.shapes[x]
        if shape.extra:
            raise refusal(self.op, shape)
        turned = build.step(Turn(axis=self.axis), (x,), None, (*name, "turn"))
        build.moves(turned, x)
        y = build.inner(self.of, turned, build.shapes[turned].dim, name, self.of.frame.on(build.shapes[turned], None))
        if build.shapes[y].extra:
            raise refusal_inside(self.op, build.shapes[y]).placed_at(self.of.place)
        back = TurnBack(axis=self.axis, height=shape.height, width=shape.width)
        whole = build.step(back, (y,), None, (*name, "back"))
        build.stands_as(whole, x)
        return whole


class Turn(Part):
    """The axis becomes the last one, in new memory: what reads it wants its channels side by side."""

    op = "turn"
    axis: Axis

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        height, width, channels = shape
        if self.axis == "positions":
            return Shape(1, channels, height * width)
        return Shape(channels, width, height) if self.axis == "rows" else Shape(height, channels, width)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return TurnModule(self.axis, shape)


class TurnModule(nn.Module):
    """See `Turn`: as many weights as the map has positions, so it is for maps of one size."""

    def __init__(self, axis: Axis, shape: Shape) -> None:
        super().__init__()
        self.axis, self.size = axis, (shape.height, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "an op across positions")
        if self.axis == "positions":
            return copied(x.flatten(1, 2).transpose(1, 2))[:, None]
        return copied(x.transpose(1, 3) if self.axis == "rows" else x.transpose(2, 3))


class TurnBack(Part):
    """The inverse of `Turn`."""

    op = "turn_back"
    axis: Axis
    height: int
    width: int

    def check(self, shape: Shape, dim: int | None) -> None:
        read = {"positions": self.height * self.width, "rows": self.height, "columns": self.width}[self.axis]
        if shape.dim != read:
            text = f"the op across {self.axis} gives {shape.dim}, it reads {read}"
            raise OpError(text, hint="dim: $in gives as many as it reads")

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        if self.axis == "positions":
            return Shape(self.height, shape.dim // self.height, shape.width)
        if self.axis == "rows":
            return Shape(shape.dim, shape.width, shape.height)
        return Shape(shape.height, shape.dim, shape.width)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return TurnBackModule(self.axis, self.height)


class TurnBackModule(nn.Module):
    """See `TurnBack`."""

    def __init__(self, axis: Axis, height: int) -> None:
        super().__init__()
        self.axis, self.height = axis, height

    def forward(self, x: Tensor) -> Tensor:
        if self.axis == "positions":
            return copied(x.squeeze(1).transpose(1, 2)).unflatten(1, (self.height, -1))
        return copied(x.transpose(1, 3) if self.axis == "rows" else x.transpose(2, 3))
