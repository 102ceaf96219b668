"""Kernels that slide over a map: how a spec writes their sides, what they pad, what size they give."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor

from blockforge.blocks.base import Shape
from blockforge.blocks.windows import is_symbolic
from blockforge.errors import OpError

Pair = tuple[int, int]
"""Of the height and of the width."""
Pads = tuple[Pair, Pair]
"""Rows of padding above and below, columns of it left and right."""


def _sides(value: Any) -> Any:
    """`[height, width]` as a pair, and as one number where both are equal: there is one way to write it."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 2 and value[0] == value[1] else tuple(value)
    return value


_Side = Annotated[int, Field(ge=1, le=99)]
_Padded = Annotated[int, Field(ge=0, le=99)]
Sides = Annotated[_Side | tuple[_Side, _Side], BeforeValidator(_sides)]
"""Of a kernel or its steps: a number or `[height, width]`."""
_MapSide = Annotated[int, Field(ge=1, le=4096)]
MapSides = Annotated[_MapSide | tuple[_MapSide, _MapSide], BeforeValidator(_sides)]
"""Of a map: a number or `[height, width]`."""
Padding = Annotated[_Padded | tuple[_Padded, _Padded] | Literal["same", "tf"], BeforeValidator(_sides)]
"""Of a map on both sides: a number or `[height, width]`; `same`: half the kernel, or nothing where steps are as long as
the kernel; `tf`: what TensorFlow pads, so that a side n gives n / stride, rounded up."""


def pair(value: int | Pair) -> Pair:
    """Both sides of what a spec writes as one or two numbers."""
    return (value, value) if isinstance(value, int) else value


def joined(value: Pair) -> int | Pair:
    """Two sides as a spec writes them."""
    return value[0] if value[0] == value[1] else value


@dataclass(frozen=True)
class Window:
    """A kernel that slides over a map, all its sides as (height, width).

    Attributes:
        padding: positions on both sides; None: as TensorFlow pads, which depends on the map.
        ceil: whether a last window that begins inside the map counts even if it ends beyond.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair | None
    ceil: bool = False

    @property
    def reach(self) -> Pair:
        """Positions from the first that the kernel reads to the last."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1

    def pads(self, height: int, width: int) -> Pads:
        """What a map of this size gets."""
        if self.padding is not None:
            above, left = self.padding
            return (above, above), (left, left)
        return self._as_tensorflow(height, 0), self._as_tensorflow(width, 1)

    def _as_tensorflow(self, side: int, axis: int) -> Pair:
        stride = self.stride[axis]
        total = max((-(-side // stride) - 1) * stride + self.reach[axis] - side, 0)
        return total // 2, total - total // 2

    @property
    def keeps_size(self) -> bool:
        """Whether what it gives has the map's size and it reads neighbours on both sides alike."""
        half = (self.kernel[0] // 2, self.kernel[1] // 2)
        return self.stride == self.dilation == (1, 1) and self.padding == half and all(k % 2 for k in self.kernel)

    def reads_beyond(self, shape: Shape) -> bool:
        """Whether the last step of a kernel of one position leads beyond the map, as of odd sides: then what it reads
        is copied in inference, see `kernels.cpu.convolutions`."""
        if self.kernel != (1, 1) or self.stride == (1, 1) or self.padding not in (None, (0, 0)):
            return False
        rows, columns, _ = self.out_shape(shape, 1)[:3]
        return rows * self.stride[0] > shape.height or columns * self.stride[1] > shape.width * self.stride[0]

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        """The map of width `dim` that it gives; of size 0 where it does not fit."""
        (above, below), (left, right) = self.pads(shape.height, shape.width)
        return Shape(self._side(shape.height, above, below, 0), self._side(shape.width, left, right, 1), dim)

    def _side(self, side: int, before: int, after: int, axis: int) -> int:
        stride, rest = self.stride[axis], side + before + after - self.reach[axis]
        if not self.ceil:
            return max(rest // stride + 1, 0)
        given = max(-(-rest // stride) + 1, 0)
        return given - 1 if (given - 1) * stride >= side + before else given  # the last one may begin in the padding


@functools.lru_cache(4096)
def window(
    kernel_size: int | Pair,
    stride: int | Pair,
    padding: int | Pair | Literal["same", "tf"],
    dilation: int | Pair = 1,
    *,
    ceil: bool = False,
) -> Window:
    """The window that a spec writes so."""
    kernel, steps, apart = pair(kernel_size), pair(stride), pair(dilation)
    if padding == "same":
        half = [0 if s >= k else (k - 1) // 2 * d for k, s, d in zip(kernel, steps, apart, strict=True)]
        return Window(kernel, steps, apart, (half[0], half[1]), ceil)
    if padding == "tf":
        tf_window = Window(kernel, steps, apart, None, ceil)
        if steps != (1, 1) or not all(side % 2 for side in tf_window.reach):
            return tf_window
        return Window(kernel, steps, apart, (tf_window.reach[0] // 2, tf_window.reach[1] // 2), ceil)  # of any map
    return Window(kernel, steps, apart, pair(padding), ceil)


def padded(x_BCHW: Tensor, over: Window, value: float = 0.0) -> Tensor:
    """A map with what the window pads around it: TensorFlow's padding, which torch's layers do not know."""
    (above, below), (left, right) = over.pads(x_BCHW.shape[2], x_BCHW.shape[3])
    if not is_symbolic(above, below, left, right) and not any((above, below, left, right)):
        return x_BCHW
    return F.pad(x_BCHW, (left, right, above, below), value=value)


def padded_shape(over: Window, shape: Shape) -> Shape:
    """The map that `padded` makes of one of this shape; where nothing is padded, or the layer does it, this map."""
    if over.padding is not None:
        return shape
    (above, below), (left, right) = over.pads(shape.height, shape.width)
    if not (above or below or left or right):
        return shape
    return Shape(above + shape.height + below, left + shape.width + right, shape.dim)


def small_padding(over: Window) -> None:
    """Raise OpError where a pool would pad more than half its kernel, which torch refuses."""
    if over.padding is not None and any(2 * p > k for p, k in zip(over.padding, over.kernel, strict=True)):
        most = joined((over.kernel[0] // 2, over.kernel[1] // 2))
        text = f"padding {_shown(over.padding)} is more than half of the kernel {_shown(over.kernel)}"
        raise OpError(text, hint=f"at most {list(most) if isinstance(most, tuple) else most}", param="padding")


def _shown(sides: Pair) -> str:
    return f"{sides[0]}x{sides[1]}"
