"""Some of the channels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.fields import Width
from blockforge.blocks.layers import copied
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("slice")
class Slice(Part):
    """So many channels from one on. They are copied where what reads them wants its channels side by side in memory;
    activations, sums and products do not.

    Shape: x_BHWC -> y_BHW(size).
    Cost: no parameters and no multiply-adds.
    Raises: OpError if the map has fewer channels.
    """

    token_rule = "each"

    start: Annotated[int, Field(ge=0, le=65_535)] = 0
    """The first channel, counted from 0."""
    size: Width | None = None
    """How many; absent: all from there on."""

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.start >= shape.dim:
            text = f"start {self.start} is behind the {shape.dim} channels of the map"
            raise OpError(text, hint=f"0 to {shape.dim - 1}", param="start")
        if self.size is not None and self.start + self.size > shape.dim:
            text = f"channels {self.start} to {self.start + self.size - 1} of a map with {shape.dim}"
            raise OpError(text, hint=f"size at most {shape.dim - self.start}", param="size")

    def resolved(self, shape: Shape, dim: int | None) -> Slice:
        return Slice(start=self.start, size=self.out_shape(shape, dim).dim)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=self.size or shape.dim - self.start)

    def as_view(self, shape: Shape, dim: int | None) -> tuple[int, int]:
        return self.start, self.start + self.out_shape(shape, dim).dim

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        out = self.out_shape(shape, dim)
        return out.elements if out != shape else 0  # all channels are the map itself

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        size = self.out_shape(shape, dim).dim
        return SliceModule(self.start, size) if size != shape.dim else nn.Identity()


class SliceModule(nn.Module):
    """See `Slice`."""

    def __init__(self, start: int, size: int) -> None:
        super().__init__()
        self.start, self.size = start, size

    def forward(self, x: Tensor) -> Tensor:
        return copied(x[..., self.start : self.start + self.size])

    def extra_repr(self) -> str:
        return f"start={self.start}, size={self.size}"
