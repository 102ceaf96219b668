"""Maps cut into tiles that lie side by side in the batch, and put together again.

Shapes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.sliding import Pair
from blockforge.blocks.windows import cut_windows, is_symbolic, join_windows

Order = Literal["blocks", "grid"]


class Grid(NamedTuple):
    """Tiles on one map: their size, by how much the map is rolled first, and how many stand along each side."""

    size: Pair
    shift: Pair
    along: Pair

    @property
    def tiles(self) -> int:
        return math.prod(self.along)

    @property
    def padded(self) -> Pair:
        """The sides of the map that the tiles make up."""
        return self.size[0] * self.along[0], self.size[1] * self.along[1]


class Tiling(NamedTuple):
    """How maps are cut: into tiles of a size, or a count a side. See `composites.tiles`."""

    size: Pair | None
    per_side: Pair | None
    shift: int | Literal["half"]
    order: Order

    def on(self, height: int, width: int) -> Grid:
        """The tiles of a map of these sides."""
        axes = [self._axis(i, side) for i, side in enumerate((height, width))]
        size, shift, along = zip(*axes, strict=True)
        return Grid(size, shift, along)

    def _axis(self, axis: int, side: int) -> tuple[int, int, int]:
        if self.size is not None:
            size = min(self.size[axis], side)
        else:
            assert self.per_side is not None
            size = -(-side // self.per_side[axis])
        shift = size // 2 if self.shift == "half" else self.shift % size
        return size, shift if side > size else 0, -(-side // size)

    def moves(self, grid: Grid) -> bool:
        """Whether the tiles lie otherwise in memory than the map; else they are a view of it."""
        (h, w), (rows, columns) = grid.size, grid.along
        before = [(rows, "r"), (h, "h"), (columns, "c"), (w, "w")]
        if self.order == "grid":
            before = [(h, "h"), (rows, "r"), (w, "w"), (columns, "c")]
        order = [axis for length, axis in before if length > 1]
        return order != [axis for axis in "rchw" if axis in order]

    @property
    def window(self) -> Pair | None:
        """Side and shift of square blocks, which are cut as windows are."""
        if self.size is None or self.size[0] != self.size[1] or self.order != "blocks":
            return None
        return self.size[0], self.size[0] // 2 if self.shift == "half" else self.shift % self.size[0]


def _most(copies: list[int]) -> int:
    """Elements alive at once where copies follow each other, each made of the one before."""
    return max((a + b for a, b in zip([0, *copies], copies, strict=False)), default=0)


class Cut(Part):
    """A map as tiles, each an image of the batch."""

    op = "cut"
    tiling: Tiling

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return Shape(*self.tiling.on(shape.height, shape.width).size, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        grid = self.tiling.on(shape.height, shape.width)
        whole = math.prod(grid.padded) * shape.dim
        is_padded = grid.padded != (shape.height, shape.width)
        return _most([whole] * (is_padded + any(grid.shift) + self.tiling.moves(grid)))

    def rolls(self, shape: Shape, dim: int | None) -> bool:
        """Whether a map of this shape is rolled: one that a single tile covers is not."""
        return any(self.tiling.on(shape.height, shape.width).shift)

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return CutModule(self.tiling)


class CutModule(nn.Module):
    """See `Cut`: (B, H, W, C) -> (B * tiles, h, w, C)."""

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling

    def forward(self, x: Tensor) -> Tensor:
        if self.tiling.window is not None and is_symbolic(*x.shape[1:3]):
            return cut_windows(x, *self.tiling.window)
        return cut_tiles(x, self.tiling.on(*x.shape[1:3]), self.tiling.order)

    def mask(self, size: Pair, device: torch.device) -> Tensor | None:
        """Which positions of each tile of a map of this size belong together: those that the roll has not brought
        there from the other side, (tiles, h * w, h * w). None: the map is too small to be rolled."""
        grid, sides = self.tiling.on(*size), []
        if not any(grid.shift):
            return None
        for length, tile, by in zip(grid.padded, grid.size, grid.shift, strict=True):
            at = torch.arange(length, dtype=torch.int64, device=device)
            sides.append((at >= length - tile).long() + (at >= length - by).long() if by else torch.zeros_like(at))
        regions = (sides[0][:, None] * 3 + sides[1])[None, :, :, None]
        of_tiles = cut_tiles(regions, grid._replace(shift=(0, 0)), self.tiling.order).flatten(1)
        return of_tiles[:, :, None] == of_tiles[:, None, :]


def cut_tiles(x: Tensor, grid: Grid, order: Order) -> Tensor:
    """(B, H, W, C) -> (B * tiles, h, w, C), zero-padded right and below, then rolled up and left; in their own memory
    where that lies otherwise than the map's, as a row of tiles of a single image might not."""
    (h, w), (rows, columns) = grid.size, grid.along
    below, right = grid.padded[0] - x.shape[1], grid.padded[1] - x.shape[2]
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    if any(grid.shift):
        x = x.roll((-grid.shift[0], -grid.shift[1]), (1, 2))
    if order == "grid":
        x = x.unflatten(1, (h, rows)).unflatten(3, (w, columns)).permute(0, 2, 4, 1, 3, 5)
    else:
        x = x.unflatten(1, (rows, h)).unflatten(3, (columns, w)).permute(0, 1, 3, 2, 4, 5)
    tiles = x.reshape(-1, h, w, x.shape[-1])
    return tiles if is_symbolic(*tiles.shape) else tiles.contiguous()


class Paste(Part):
    """Tiles as a map again, cropped to the `height` and `width` that they were cut from if they kept their size."""

    op = "paste"
    tiling: Tiling
    height: int
    width: int

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        grid = self.tiling.on(self.height, self.width)
        if (shape.height, shape.width) == grid.size:
            return Shape(self.height, self.width, shape.dim)
        return Shape(grid.along[0] * shape.height, grid.along[1] * shape.width, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        grid, out = self.tiling.on(self.height, self.width), self.out_shape(shape, dim).elements
        whole = shape.elements * grid.tiles
        copies = [whole] * (self.tiling.moves(grid) + any(grid.shift))
        return _most([*copies, *([out] if out != whole else [])])

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return PasteModule(self.tiling)


class PasteModule(nn.Module):
    """See `Paste`: (B * tiles, h, w, C), (H, W) -> (B, H, W, C)."""

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        if (window := self.tiling.window) is not None and is_symbolic(*size):
            return join_windows(x, window[0], size[0], size[1], window[1])
        grid = self.tiling.on(*size)
        h, w = x.shape[1:3]
        x = x.unflatten(0, (-1, *grid.along))
        x = x.permute(0, 3, 1, 4, 2, 5) if self.tiling.order == "grid" else x.permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, grid.along[0] * h, grid.along[1] * w, x.shape[-1])
        if any(grid.shift):
            x = x.roll(grid.shift, (1, 2))
        if (h, w) == grid.size and grid.padded != tuple(size):
            x = x[:, : size[0], : size[1]].contiguous()
        return x
