"""A map of another size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.fields import Ratio
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.sliding import MapSides, Pair, pair
from blockforge.errors import OpError

Mode = Literal["nearest", "bilinear", "bicubic"]


@part("resize")
class Resize(Part):
    """The map interpolated at another size; corners are those of the map, not the centres of its corner positions.

    Shape: x_BHWC -> a map of `size`, or of H and W times `scale`, rounded down.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if both `scale` and `size` are given, or nothing of the map is left.
    """

    scale: Ratio | None = None
    """How many times as long the sides become; absent: twice, or as `size` says."""
    size: MapSides | None = None
    """Sides of the result, in place of `scale`."""
    mode: Mode = "nearest"
    """How positions between are found."""

    @property
    def mixes(self) -> bool:
        return True

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.scale is not None and self.size is not None:
            raise OpError("scale and size say one thing twice", hint="leave one of them out", param="size")

    def resolved(self, shape: Shape, dim: int | None) -> Resize:
        return self if self.size is not None else self.model_copy(update={"scale": self.times})

    @property
    def times(self) -> float:
        return float(self.scale or 2)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(*_size((shape.height, shape.width), self.size, self.times), shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return ResizeModule(self.size, self.times, self.mode)


def _size(sides: Pair, size: int | Pair | None, times: float) -> Pair:
    if size is not None:
        return pair(size)
    if times == int(times):
        return sides[0] * int(times), sides[1] * int(times)
    return torch.sym_int(sides[0] * times), torch.sym_int(sides[1] * times)


class ResizeModule(nn.Module):
    """See `Resize`."""

    def __init__(self, size: int | Pair | None, times: float, mode: Mode) -> None:
        super().__init__()
        self.size, self.times, self.mode = size, times, mode

    def forward(self, x: Tensor) -> Tensor:
        size = _size((x.shape[1], x.shape[2]), self.size, self.times)
        corners = None if self.mode == "nearest" else False
        return on_nchw(lambda t: F.interpolate(t, size=size, mode=self.mode, align_corners=corners), x)

    def extra_repr(self) -> str:
        return f"mode={self.mode}, " + (f"scale={self.times:g}" if self.size is None else f"size={self.size}")
