"""How maps of several sizes meet in a join: sides of one position are broadcast, others may be resized.

Shapes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.blocks.base import Shape
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.part import Join
from blockforge.blocks.windows import is_symbolic
from blockforge.errors import OpError

Resize = Literal["nearest", "bilinear"]
"""How maps come to another size."""


class MeetingJoin(Join):
    """A join of maps of one size. Along a side a single position stands for all, so a 1x1 map joins any other."""

    resize: Resize | None = None
    """How maps come to the size of the first one; absent: they have one size, or a single position along a side."""

    def size(self, shapes: tuple[Shape, ...]) -> tuple[int, int]:
        """Height and width of the result. Raises: OpError if the maps do not meet."""
        if self.resize is not None:
            return shapes[0].height, shapes[0].width
        return _side([s.height for s in shapes], shapes), _side([s.width for s in shapes], shapes)

    def resized(self, shapes: tuple[Shape, ...]) -> tuple[bool, ...]:
        """Which maps are resized. What is a single position is broadcast."""
        first = shapes[0]
        return tuple(self.resize is not None and s.positions > 1 and s[:2] != first[:2] for s in shapes)

    def meeting(self, shapes: tuple[Shape, ...]) -> Meeting:
        return Meeting(self.resize, self.resized(shapes))

    def resolved(self, shapes: tuple[Shape, ...], dim: int | None) -> MeetingJoin:
        return self if any(self.resized(shapes)) else self.model_copy(update={"resize": None})

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        self.size(shapes)


class Meeting(NamedTuple):
    """How the maps of a module meet. `resized`: which of them had another size than the first when it was built."""

    resize: Resize | None
    resized: tuple[bool, ...]

    def sized(self, maps: Sequence[Tensor], index: int) -> Tensor:
        """The map of this index, in the size of the first one or as it may be broadcast to that. Raises: OpError for
        images of a size at which the maps do not meet."""
        x, (height, width) = maps[index], maps[0].shape[1:3]
        if self.resize is None:
            _check_sides(x, height, width)
            return x
        if not self._differs(x, height, width, index):
            return x
        corners = None if self.resize == "nearest" else False
        mode = self.resize
        return on_nchw(lambda t: F.interpolate(t, size=(height, width), mode=mode, align_corners=corners), x)

    def _differs(self, x: Tensor, height: int, width: int, index: int) -> bool:
        """In a graph whose sizes vary, as it was built."""
        own = x.shape[1:3]
        if is_symbolic(height, width, *own) or torch.jit.is_tracing():
            return self.resized[index]
        return (height, width) != tuple(own) and own.numel() > 1


def added(x: Tensor, y: Tensor) -> Tensor:
    """The sum of an identity path and what was made beside it, x_BHWC and y_BHWC. Raises: OpError for images of a size
    at which theirs differ, as where one has a size of its own: nothing is broadcast."""
    (height, width), (rows, columns) = x.shape[1:3], y.shape[1:3]
    if is_symbolic(rows, columns, height, width) or torch.jit.is_tracing():
        return x + y
    if rows != height or columns != width:
        hint = "what $height or $width gave, and a grid, has one size: build the model for this one with input.size"
        raise _apart(height, width, rows, columns, hint)
    return x + y


def _check_sides(x: Tensor, height: int, width: int) -> None:
    rows, columns = x.shape[1:3]
    if is_symbolic(rows, columns, height, width) or torch.jit.is_tracing():
        return
    if (1 < rows != height > 1) or (1 < columns != width > 1):
        hint = "a size that all strides divide, or resize: bilinear in the join"
        raise _apart(height, width, rows, columns, hint)


def _apart(height: int, width: int, rows: int, columns: int, hint: str) -> OpError:
    text = f"maps of {height}x{width} and {rows}x{columns} do not meet at this size of the image"
    return OpError(text, hint=hint, code="sizes")


def _side(sizes: list[int], shapes: tuple[Shape, ...]) -> int:
    longer = {size for size in sizes if size > 1}
    if len(longer) > 1:
        hint = "resize: bilinear, or nearest, brings all to the size of the first"
        raise OpError(f"maps of {listed(shapes)} do not meet", hint=hint, param="resize", code="sizes")
    return max(sizes)


def listed(shapes: tuple[Shape, ...]) -> str:
    """`96x14x14 and 96x7x7`."""
    *most, last = map(str, shapes)
    return f"{', '.join(most)} and {last}" if most else last


def unasked_width(join: str, given: int, asked: int) -> OpError:
    """What is wrong with a join that gives another width than it is asked for."""
    hint = "concat gives any width; what others join must have it"
    return OpError(f"'{join}' gives {given} channels, not {asked}", hint=hint, param="dim", code="dim")
