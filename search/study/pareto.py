"""Better and worse with several values: non-dominated ranks and crowding, as in NSGA-II (Deb et al., 2002).

Values are losses here: a row a candidate, a column an objective, smaller is better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]


def ranks(losses: Losses) -> npt.NDArray[np.intp]:
    """0 for rows that no other dominates, 1 for those that only rows of rank 0 dominate, and so on."""
    n, columns = losses.shape
    if columns == 1:
        return np.unique(losses[:, 0], return_inverse=True)[1].reshape(n)
    no_worse: npt.NDArray[np.bool_] = np.all(losses[:, None] <= losses[None], axis=2)
    better = no_worse & ~no_worse.T
    rank_of = np.full(n, -1, dtype=np.intp)
    rank = 0
    while (open_ := rank_of < 0).any():
        front = open_ & ~better[open_].any(0)
        rank_of[front] = rank
        rank += 1
    return rank_of


def crowding(losses: Losses) -> npt.NDArray[np.float64]:
    """How far the neighbours of each row of one front lie; infinite at its ends."""
    n = len(losses)
    distance = np.zeros(n)
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] or 1.0
        distance[order[[0, -1]]] = np.inf
        if n > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def order(losses: Losses) -> list[int]:
    """Rows from best to worst: by rank, within a rank the least crowded first, then as they stand."""
    if not len(losses):
        return []
    rank = ranks(losses)
    spread = np.zeros(len(losses))
    if losses.shape[1] > 1:
        for r in np.unique(rank):
            spread[rank == r] = crowding(losses[rank == r])
    return [int(i) for i in np.lexsort((np.arange(len(losses)), -spread, rank))]
