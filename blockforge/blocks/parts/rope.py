"""Rotary embeddings of positions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, divisible
from blockforge.blocks.divisors import nearest
from blockforge.blocks.fields import Count
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.sliding import MapSides, pair
from blockforge.blocks.token_rows import apart, beside
from blockforge.errors import OpError

Pairs = Literal["neighbours", "halves"]
_HEAD_DIM = 32


@part("rope")
class Rope(Part):
    """Turns pairs of channels of each head by angles that grow with the row of a position, in the first half of the
    pairs, and with its column in the second. Of queries and keys that are turned so the products depend on how far
    apart their positions are. Tokens beside the map stay as they are.

    Shape: x_BHWC -> y_BHWC; with tokens only the H and W it was built for.
    Cost: no parameters and no multiply-adds, as operator counters have it.
    Raises: OpError if the heads do not divide the channels, or 4 the width of a head.
    Reference: RoFormer, https://arxiv.org/abs/2104.09864; of rows and columns: EVA-02, https://arxiv.org/abs/2303.11331.
    """

    token_rule = "own"

    num_heads: Count | None = None
    """Heads; or say their width with `head_dim`."""
    head_dim: Count | None = None
    """Width of a head; 32 if neither it nor `num_heads` is given."""
    temperature: Annotated[float, Field(gt=1, le=1e6)] = 10000.0
    """By how much slower the last pair of an axis turns than the first, about."""
    pairs: Pairs = "neighbours"
    """Which channels of a head are a pair: neighbours, or one of the first half and one of the second."""

    size: MapSides | None = None
    """Rows and columns are counted as if the map had these sides, for images of other sizes than those of training;
    absent: as they are."""

    def heads(self, shape: Shape) -> int:
        return self.num_heads or max(1, shape.dim // (self.head_dim or _HEAD_DIM))

    def check(self, shape: Shape, dim: int | None) -> None:
        by = "head_dim" if self.num_heads is None else "num_heads"
        divisible(shape.dim, self.heads(shape), "channels", by, by)
        wide = shape.dim // self.heads(shape)
        if wide % 4:
            widths = [width for width in range(4, shape.dim + 1, 4) if shape.dim % width == 0]
            heads = (shape.dim // width for width in widths)
            near = nearest(by, widths, wide) if by == "head_dim" else nearest(by, heads, self.heads(shape))
            text = f"width of a head {wide} is not divisible by 4, for pairs of rows and of columns"
            hint = f"{near} would do" if near else "4 must divide the channels"
            raise OpError(text, hint=hint, param=by, code="divisibility")

    def resolved(self, shape: Shape, dim: int | None) -> Rope:
        return self.model_copy(update={"num_heads": self.heads(shape), "head_dim": None})

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        row = (shape.extra, shape.height, shape.width) if shape.extra else None
        return RopeModule(self.heads(shape), self.temperature, self.pairs, pair(self.size) if self.size else None, row)


class RopeModule(nn.Module):
    """See `Rope`. `row`: how many tokens stand before the positions of a map of which size; absent: there are none."""

    def __init__(
        self,
        num_heads: int,
        temperature: float,
        pairs: Pairs,
        size: tuple[int, int] | None,
        row: tuple[int, int, int] | None,
    ) -> None:
        super().__init__()
        self.num_heads, self.temperature, self.pairs, self.size, self.row = num_heads, temperature, pairs, size, row

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if self.row is None:
            return self.turned(x_BHWC, *x_BHWC.shape[1:3])
        tokens, height, width = self.row
        tokens_B1EC, map_BHWC = apart(x_BHWC, tokens, (height, width), "rope")
        return beside(tokens_B1EC, self.turned(map_BHWC, height, width))

    def turned(self, x_BHWC: Tensor, height: int, width: int) -> Tensor:
        heads = x_BHWC.unflatten(-1, (self.num_heads, -1))
        angles = self.angles(height, width, heads.shape[-1], x_BHWC.device)[:, :, None]
        cos, sin = (t.to(x_BHWC.dtype) for t in (angles.cos(), angles.sin()))
        if self.pairs == "halves":
            a, b = heads.chunk(2, -1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        a, b = heads.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-3)

    def angles(self, height: int, width: int, head_dim: int, device: torch.device) -> Tensor:
        """Of each pair at each position, (H, W, head_dim / 2): those of rows, then those of columns."""
        waves = head_dim // 4
        speeds = self.temperature ** -(torch.arange(waves, device=device, dtype=torch.float32) / waves)
        sides, counted = (height, width), self.size or (height, width)
        rows, columns = (
            (torch.arange(n, device=device, dtype=torch.float32) * (like / n))[:, None] * speeds
            for n, like in zip(sides, counted, strict=True)
        )
        size = (height, width, waves)
        return torch.cat((rows[:, None].expand(size), columns[None].expand(size)), -1)

    def extra_repr(self) -> str:
        size = f", size={self.size}" if self.size else ""
        return f"num_heads={self.num_heads}, temperature={self.temperature:g}, pairs={self.pairs}{size}"
