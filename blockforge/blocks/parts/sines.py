"""Sines and cosines of positions."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, divisible
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

_EPS = 1e-6


@part("sines")
class Sines(Part):
    """In place of the map sines and cosines of where a position is in it: half of the channels of its row, half of its
    column, in waves that grow from one to many heights or widths of the map. Beside the map, through a linear layer,
    they are an embedding of positions that serves maps of any size.

    Shape: x_BHWC -> y_BHWD, of the width that it is asked for.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if 4 does not divide the width.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762; of rows and columns: XCiT, NeurIPS 2021,
    https://arxiv.org/abs/2106.09681.
    """

    longest: Annotated[float, Field(gt=1, le=1e6)] = 10000.0
    """By how much the longest wave is longer than the first, about."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=dim or shape.dim)

    def check(self, shape: Shape, dim: int | None) -> None:
        divisible(dim or shape.dim, 4, "dim", "sine and cosine of row and column", "dim")

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return 0

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return SinesModule(dim or shape.dim, self.longest)


class SinesModule(nn.Module):
    """See `Sines`."""

    def __init__(self, dim: int, longest: float) -> None:
        super().__init__()
        self.dim, self.longest = dim, longest

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width = x_BHWC.shape[:3]
        rows, columns = (self.of_side(length, x_BHWC.device) for length in (height, width))
        size = (height, width, -1)
        y = torch.cat((rows[:, None].expand(size), columns[None].expand(size)), -1)
        return y.to(x_BHWC.dtype).repeat(batch, 1, 1, 1)

    def of_side(self, length: int, device: torch.device) -> Tensor:
        """Sine and cosine of each wave in turn, (length, dim / 2)."""
        waves = self.longest ** (torch.arange(self.dim // 4, device=device, dtype=torch.float32) * (4 / self.dim))
        places = torch.arange(1, length + 1, device=device, dtype=torch.float32) / (length + _EPS) * (2 * math.pi)
        angles = places[:, None] / waves
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.dim}, longest={self.longest:g}"
