"""Windows of a map: cut into tiles that lie side by side in the batch, and joined again.

Shapes: B batch, H height, W width, C channels, P all positions of a batch.

In a captured graph whose sizes vary, windows are cut and joined by the numbers of their positions, not by views. Of
each view torch.export asks whether it lies in memory as its copy would. With one window along a side it does, with
more it does not, so a graph captured with more would refuse one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class Windows(NamedTuple):
    """Windows of a layer, whatever the map: squares of at most `side`, shifted by `shift` where the map is larger."""

    side: int
    shift: int = 0

    def on(self, height: int, width: int) -> tuple[int, int]:
        """Side and shift on a map. A window that covers the map's shorter side shrinks to it and stays where it is."""
        shorter = _least(height, width)
        side = _least(self.side, shorter)
        return side, self.shift * _least(1, shorter - side)


def cut_windows(x: Tensor, window: int, shift: int = 0) -> Tensor:
    """(B, H, W, C) -> (B * tiles, window, window, C), zero-padded right and below, then shifted cyclically
    up and left."""
    height, width = x.shape[1:3]
    rows, columns = tiles_along(height, window), tiles_along(width, window)
    below, right = rows * window - height, columns * window - width
    varies = is_symbolic(height, width)
    if varies or below or right or torch.compiler.is_dynamo_compiling():
        x = F.pad(x, (0, 0, 0, right, 0, below))
    if varies:
        batch, dim = x.shape[0], x.shape[3]
        numbers = _of_tiles(rows, columns, window, shift, x.device)
        x = _gathered(x.flatten(0, 2), batch, rows * columns * window * window, numbers)
        return x.reshape(batch * rows * columns, window, window, dim)
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    return rearrange(x, "b (rows h) (columns w) c -> (b rows columns) h w c", h=window, w=window)


def join_windows(x: Tensor, window: int, height: int, width: int, shift: int = 0) -> Tensor:
    """The inverse of `cut_windows`, the padding cut off: (B * tiles, window, window, C) -> (B, H, W, C). Tiles that
    have become another size, h x w, give the map that they make up, of which nothing is cut off."""
    rows, columns = tiles_along(height, window), tiles_along(width, window)
    h, w = x.shape[1:3]
    is_kept = (h, w) == (window, window)
    if is_symbolic(height, width):
        if not is_kept:
            height, width = rows * h, columns * w
        batch, dim = x.shape[0] // (rows * columns), x.shape[-1]
        numbers = _in_tiles(height, width, h, w, shift, x.device)
        x = _gathered(x.flatten(0, 2), batch, rows * columns * h * w, numbers)
        return x.reshape(batch, height, width, dim)
    x = rearrange(x, "(b rows columns) h w c -> b (rows h) (columns w) c", rows=rows, columns=columns)
    if shift:
        x = x.roll((shift, shift), (1, 2))
    if is_kept and (height % window or width % window or torch.compiler.is_dynamo_compiling()):
        x = x[:, :height, :width].contiguous()
    return x


def tiles_along(size: int, window: int) -> int:
    """How many windows cover a side, the last one perhaps in part."""
    return (size + window - 1) // window


def is_symbolic(*sizes: int) -> bool:
    """Whether a graph is captured in which one of these sizes may vary."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


def _least(a: int, b: int) -> int:
    least: int = torch.sym_min(a, b) if is_symbolic(a, b) else min(a, b)
    return least


def _gathered(x_PC: Tensor, batch: int, positions: int, numbers: Tensor) -> Tensor:
    """Of each image's `positions` those with these numbers, image by image."""
    firsts = torch.arange(batch, dtype=torch.int64, device=numbers.device)[:, None] * positions
    return x_PC.index_select(0, (firsts + numbers).flatten())


def _of_tiles(rows: int, columns: int, window: int, shift: int, device: torch.device) -> Tensor:
    """The row-major number on the padded map of each position of the windows, window by window."""
    height, width = rows * window, columns * window
    tile, inside = _divided(torch.arange(height * width, dtype=torch.int64, device=device), window * window)
    (row, column), (y, x) = _divided(tile, columns), _divided(inside, window)
    (_, y), (_, x) = _divided(row * window + y + shift, height), _divided(column * window + x + shift, width)
    return y * width + x


def _in_tiles(height: int, width: int, h: int, w: int, shift: int, device: torch.device) -> Tensor:
    """The number among the positions of windows of h x w of each position of the map, in row-major order."""
    rows, columns = tiles_along(height, h), tiles_along(width, w)
    y, x = _divided(torch.arange(height * width, dtype=torch.int64, device=device), width)
    (_, y), (_, x) = (_divided(t + n * side - shift, n * side) for t, n, side in ((y, rows, h), (x, columns, w)))
    (row, y), (column, x) = _divided(y, h), _divided(x, w)
    return ((row * columns + column) * h + y) * w + x


def _divided(numbers: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder. (The converter to ONNX knows no remainder by a size that varies.)"""
    quotient = numbers // by
    return quotient, numbers - quotient * by
