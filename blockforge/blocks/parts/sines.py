"""Sines and cosines of positions."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, divisible
from blockforge.blocks.fields import Width
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

_EPS = 1e-6


@part("sines")
class Sines(Part):
    """Beside the map sines and cosines of where a position is in it: half of these channels of its row, half of its
    column, in waves that grow from one to many heights or widths of the map. Through a linear layer they are an
    embedding of positions that serves maps of any size.

    Shape: x_BHWC -> y_BHW(C + channels).
    Cost: no parameters and no multiply-adds.
    Raises: OpError if 4 does not divide the channels.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762; of rows and columns: XCiT, NeurIPS 2021,
    https://arxiv.org/abs/2106.09681.
    """

    channels: Width = 64
    """How many are put beside the map's."""
    longest: Annotated[float, Field(gt=1, le=1e6)] = 10000.0
    """By how much the longest wave is longer than the first, about."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(dim=shape.dim + self.channels)

    def check(self, shape: Shape, dim: int | None) -> None:
        divisible(self.channels, 4, "channels", "sine and cosine of row and column", "channels", instead="")

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return SinesModule(self.channels, self.longest)


class SinesModule(nn.Module):
    """See `Sines`."""

    def __init__(self, channels: int, longest: float) -> None:
        super().__init__()
        self.channels, self.longest = channels, longest

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width = x_BHWC.shape[:3]
        rows, columns = (self.of_side(length, x_BHWC.device) for length in (height, width))
        size = (height, width, -1)
        y = torch.cat((rows[:, None].expand(size), columns[None].expand(size)), -1)
        return torch.cat((x_BHWC, y.to(x_BHWC.dtype).expand(batch, -1, -1, -1)), -1)

    def of_side(self, length: int, device: torch.device) -> Tensor:
        """Sine and cosine of each wave in turn, (length, channels / 2)."""
        waves = self.longest ** (
            torch.arange(self.channels // 4, device=device, dtype=torch.float32) * (4 / self.channels)
        )
        places = torch.arange(1, length + 1, device=device, dtype=torch.float32) / (length + _EPS) * (2 * math.pi)
        angles = places[:, None] / waves
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.channels}, longest={self.longest:g}"
