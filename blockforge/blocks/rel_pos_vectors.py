"""A bias of attention's logits that reads the queries: their products with learnt vectors for the distances to keys.

Shapes: B batch, N heads, L queries of a map HxW, S keys of a map Y rows by X columns, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.computed import Computed
from blockforge.blocks.rel_pos import Size


class RelativePositionVectors(Computed):
    """One learnt vector for each vertical and one for each horizontal distance, which all heads share: q_BNLD ->
    (B, N, L, S), the query's product with the one plus that with the other.

    The distances run from the most negative up, in steps of the finer of both maps, over which the positions of the
    coarser one are spread. In a smaller tile the same distances have the same vectors.

    Args:
        tile: height and width of the keys.
        queries: those of the queries.
    """

    def __init__(self, tile: Size, head_dim: int, queries: Size) -> None:
        super().__init__()
        self.tile, self.queries = tile, queries
        self.rows, self.columns = (nn.Parameter(torch.empty(count, head_dim)) for count in vectors_along(queries, tile))
        self.reset_parameters()
        self.hold_computed()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.rows, std=0.02)
        nn.init.trunc_normal_(self.columns, std=0.02)

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        sides = zip(("of_rows", "of_columns"), self.queries, self.tile, strict=True)
        return {name: steps_apart(query, key, device) for name, query, key in sides}

    def forward(self, q_BNLD: Tensor, tile: Size | None = None) -> Tensor:
        """The bias; with `tile` of a smaller map, where queries and keys are the same positions."""
        of_rows, of_columns = self.held("of_rows", self.rows), self.held("of_columns", self.columns)
        if tile is not None:
            most = (max(sides) for sides in zip(self.queries, self.tile, strict=True))
            of_rows, of_columns = (
                steps_apart(side, side, q_BNLD.device) + whole - side for side, whole in zip(tile, most, strict=True)
            )
        q_BNHWD = q_BNLD.unflatten(2, tile or self.queries)
        by_row_BNHWY = torch.einsum("bnhwd,hyd->bnhwy", q_BNHWD, F.embedding(of_rows, self.rows))
        by_column_BNHWX = torch.einsum("bnhwd,wxd->bnhwx", q_BNHWD, F.embedding(of_columns, self.columns))
        # the first says how the sum lies in memory
        return (by_row_BNHWY.contiguous()[..., None] + by_column_BNHWX[..., None, :]).flatten(4).flatten(2, 3)

    def no_weight_decay(self) -> set[str]:
        return {"rows", "columns"}

    def resized(self, name: str, value: Tensor) -> Tensor | None:
        """The vectors of other maps, on a line between their neighbours, as MViT v2's code and SAM's resize them."""
        own = self.get_parameter(name)
        if value.ndim != 2 or value.shape[1] != own.shape[1]:
            return None
        return F.interpolate(value.T[None], size=own.shape[0], mode="linear")[0].T


def vectors_along(queries: Size, keys: Size) -> Size:
    """How many distances there are along each axis."""
    rows, columns = (2 * max(sides) - 1 for sides in zip(queries, keys, strict=True))
    return rows, columns


def steps_apart(queries: int, keys: int, device: torch.device | None) -> Tensor:
    """How far behind each key a query stands along an axis, counted from the most negative distance: (queries, keys).
    Fractions of a step, between maps of which neither side is a multiple of the other, are rounded down."""
    query, key = (torch.arange(n, dtype=torch.int64, device=device) for n in (queries, keys))
    return torch.div(query[:, None] * keys + (keys - 1 - key) * queries, min(queries, keys), rounding_mode="floor")
