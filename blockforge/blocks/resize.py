"""Grids of positions on other grids, for parameters that depend on the size of the image or the window."""

from __future__ import annotations

import math

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def square_grid(rows: int) -> tuple[int, int] | None:
    """The square that so many positions make."""
    side = math.isqrt(rows)
    return (side, side) if side and side * side == rows else None


def bicubic(grid_LC: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Vectors on a grid of positions, row by row, on another grid: (H W, C) -> (H' W', C)."""
    maps = rearrange(grid_LC.float(), "(h w) c -> 1 c h w", h=old[0], w=old[1])
    maps = F.interpolate(maps, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return rearrange(maps, "1 c h w -> (h w) c").to(grid_LC.dtype)
