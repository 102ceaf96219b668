"""Grids of positions on other grids, for parameters that depend on the size of the image or the window."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def square_grid(rows: int) -> tuple[int, int] | None:
    """The square that so many positions make."""
    side = math.isqrt(rows)
    return (side, side) if side and side * side == rows else None


def bicubic(grid_LC: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Vectors on a grid of positions, row by row, on another grid: (H W, C) -> (H' W', C)."""
    maps = grid_LC.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return maps.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1).to(grid_LC.dtype)
