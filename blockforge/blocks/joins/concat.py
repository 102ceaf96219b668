"""Maps side by side: what the aggregator `concat` is as a join."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.joins.meeting import Meeting, MeetingJoin
from blockforge.blocks.layers import Linear


class ConcatJoin(MeetingJoin):
    """The channels of the maps one behind the other; where another width is asked for than they have together,
    through a 1x1 convolution to it. Sides of 1 are broadcast.

    Shape: maps_BHW* -> y_BHWD; D is the sum of their widths, or the width asked for.
    Cost: none, or D * (the maps' widths) multiply-adds a position.
    Raises: OpError if the maps differ in size.
    """

    token_rule = "each"

    op = "concat"

    def projects(self, shapes: tuple[Shape, ...], dim: int | None) -> bool:
        """Whether a convolution stands behind it."""
        return dim is not None and dim != joined(shapes)

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return Shape(*self.size(shapes), dim or joined(shapes))

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        out = self.out_shape(shapes, dim)
        return primitives.linear(joined(shapes), out.dim, out.positions) if self.projects(shapes, dim) else Cost()

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        out, width = self.out_shape(shapes, dim), joined(shapes)
        resized = sum(s.dim for s, is_resized in zip(shapes, self.resized(shapes), strict=True) if is_resized)
        return out.positions * (width + max(resized, out.dim if self.projects(shapes, dim) else 0))

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        height, width = self.size(shapes)
        tall, wide = ([s[axis] for s in shapes].index(size) for axis, size in enumerate((height, width)))
        sides = None if all(s[:2] == (height, width) for s in shapes) else (tall, wide)
        proj = Linear(joined(shapes), dim) if dim is not None and self.projects(shapes, dim) else nn.Identity()
        return ConcatModule(self.meeting(shapes), sides, proj)


class ConcatModule(nn.Module):
    """See `ConcatJoin`. `sides`: the maps that have the result's height and its width, where not all have both."""

    def __init__(self, meeting: Meeting, sides: tuple[int, int] | None, proj: nn.Module) -> None:
        super().__init__()
        self.meeting, self.sides, self.proj = meeting, sides, proj

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        return self.proj(self.joined([self.meeting.sized(maps_BHWC, i) for i in range(len(maps_BHWC))]))

    def joined(self, maps: list[Tensor]) -> Tensor:
        if self.sides is not None:
            height, width = maps[self.sides[0]].shape[1], maps[self.sides[1]].shape[2]
            maps = [x.expand(-1, height, width, -1) for x in maps]
        return torch.cat(maps, dim=-1)


def joined(shapes: tuple[Shape, ...]) -> int:
    """The widths of the maps together."""
    return sum(shape.dim for shape in shapes)
