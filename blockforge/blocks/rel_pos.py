"""Biases of attention's logits that depend on how far apart a query and a key stand: learnt tables, and a network.

Shapes: L queries, S keys. Where there are fewer queries than keys along a side, they stand at every second, third, ...
key, from the first on.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.computed import Computed
from blockforge.blocks.layers import Linear
from blockforge.blocks.resize import bicubic, square_grid
from blockforge.blocks.windows import is_symbolic, tiles_along

Size = tuple[int, int]
"""Height and width in positions."""


class RelativePositionBias(Computed):
    """One learnt number for each head and relative position in a tile: () -> (1, heads, L, S).

    The table's rows run over the vertical distances, and within one over the horizontal ones, from the most
    negative up; `symmetric`: over the distances without their signs. In a smaller tile the same distances have the same
    numbers. `queries`: their height and width, if they are not the tile's.
    """

    def __init__(self, tile: Size, num_heads: int, queries: Size | None = None, symmetric: bool = False) -> None:
        super().__init__()
        self.tile, self.queries, self.symmetric = tile, queries or tile, symmetric
        self.table = nn.Parameter(torch.empty(table_rows(tile, symmetric), num_heads))
        self.reset_parameters()
        self.hold_computed()

    def reset_parameters(self) -> None:
        if self.symmetric:
            nn.init.zeros_(self.table)
        else:
            nn.init.trunc_normal_(self.table, std=0.02)

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        rows, columns = distances(self.queries, self.tile, device)
        if self.symmetric:
            return {"index": rows.abs() * self.tile[1] + columns.abs()}
        return {"index": row_of(rows, columns, self.tile)}

    def forward(self, tile: Size | None = None) -> Tensor:
        """The bias; of a smaller tile, where queries and keys are the same positions."""
        index = self.held("index", self.table)
        if tile is not None and (is_symbolic(*tile) or tile != self.tile):
            at = torch.arange(tile[0] * tile[1], dtype=torch.int64, device=index.device)
            at = at // tile[1] * (self.tile[1] - tile[1]) + at  # the same positions' numbers in the whole tile
            index = index.index_select(0, at).index_select(1, at)
        return looked_up(self.table, index)

    def no_weight_decay(self) -> set[str]:
        return {"table"}

    def resized(self, name: str, value: Tensor) -> Tensor | None:
        """The table of another square window, as Swin's code resizes it for fine-tuning."""
        old = square_grid(value.numel() // self.table.shape[1])
        if self.symmetric or old is None or value.shape[-1] != self.table.shape[1]:
            return None
        return bicubic(value.reshape(old[0] * old[1], -1), old, (2 * self.tile[0] - 1, 2 * self.tile[1] - 1))


class RelativePositionMLP(Computed):
    """A number for each head and relative position in a tile, from a small network of the two distances on a
    logarithmic scale: () -> (1, heads, L, S), between 0 and 16. It works in tiles of any size."""

    def __init__(self, tile: Size, num_heads: int, hidden: int, queries: Size | None = None) -> None:
        super().__init__()
        self.tile, self.queries = tile, queries or tile
        self.cpb_mlp = nn.Sequential(Linear(2, hidden), nn.ReLU(), Linear(hidden, num_heads, bias=False))
        self.hold_computed()

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        coords, index = self.tables(self.queries, self.tile, device)
        return {"coords": coords.to(torch.get_default_dtype()), "index": index}

    @staticmethod
    def tables(queries: Size, tile: Size, device: torch.device | None) -> tuple[Tensor, Tensor]:
        """The scaled distances of each row of the table, and the rows of queries and keys."""
        sides = []
        for size in tile:
            apart = torch.arange(1 - size, size, dtype=torch.float32, device=device) * 8 / _at_least_1(size - 1)
            sides.append(apart.sign() * (apart.abs() + 1).log2() / math.log2(8))
        coords = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
        return coords, row_of(*distances(queries, tile, device), tile)

    def forward(self, tile: Size | None = None) -> Tensor:
        like = next(self.parameters())
        coords, index = self.held("coords", like), self.held("index", like)
        if tile is not None and (is_symbolic(*tile) or tile != self.tile):
            coords, index = self.tables(tile, tile, like.device)
        return looked_up(16 * self.cpb_mlp(coords.to(like.dtype)).sigmoid(), index)


def _at_least_1(size: int) -> int:
    least: int = torch.sym_max(size, 1) if is_symbolic(size) else max(size, 1)
    return least


def table_rows(tile: Size, symmetric: bool = False) -> int:
    """How many relative positions there are in a tile."""
    height, width = tile
    return height * width if symmetric else (2 * height - 1) * (2 * width - 1)


def distances(queries: Size, keys: Size, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """How far below and to the right of each key a query stands: two of (L, S)."""
    alike = queries is keys  # of sizes that vary nothing else tells that they are equal
    steps = [1 if alike else tiles_along(key, query) for query, key in zip(queries, keys, strict=True)]
    q = [torch.arange(n, dtype=torch.int64, device=device) * step for n, step in zip(queries, steps, strict=True)]
    k = [torch.arange(n, dtype=torch.int64, device=device) for n in keys]
    places = [[t.flatten() for t in torch.meshgrid(*sides, indexing="ij")] for sides in (q, k)]
    rows, columns = (of_q[:, None] - of_k[None, :] for of_q, of_k in zip(*places, strict=True))
    return rows, columns


def row_of(rows: Tensor, columns: Tensor, tile: Size) -> Tensor:
    """The row of a table for each distance, the most negative ones first."""
    height, width = tile
    return (rows + height - 1) * (2 * width - 1) + columns + width - 1


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table as what is added to logits, (1, heads, L, S)."""
    return F.embedding(index, table).permute(2, 0, 1).contiguous()[None]
