"""How far a ranking is one by size.

No training-free score is a measure of accuracy. Most of them grow with the network, so every report shows how far
the score orders the candidates as their size alone would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from blockforge.search.objectives.costs import COSTS

RANK_SUM = "rank sum"
CAPACITY = "sum log dim"
"""What the objective `capacity` gives."""
BASELINES = ("log MACs", "log params", "depth", RANK_SUM, CAPACITY)
"""What size alone says, to be shown beside every score."""


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings; None where one is constant or there are fewer than two values."""
    x, y = (signs(v) for v in (a, b))
    pairs = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum() / pairs) if pairs else None


def signs(values: Sequence[float]) -> np.ndarray:
    """Which of two values is larger, for every pair: an n x n matrix of -1, 0, 1."""
    return np.sign(np.subtract.outer(v := np.asarray(values, float), v))


def baselines(
    macs: Sequence[int], params: Sequence[int], depth: Sequence[int], capacity: Sequence[float]
) -> dict[str, list[float]]:
    """The scores of `BASELINES` for candidates of known size. The rank sum adds the ranks by params and by depth."""
    ranks = rank(params) + rank(depth)
    logs = ([math.log(max(1, v)) for v in values] for values in (macs, params))
    columns = (*logs, [float(d) for d in depth], ranks.tolist(), list(capacity))
    return dict(zip(BASELINES, columns, strict=True))


def rank(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    v = np.asarray(values, float)
    return (v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) - 1) / 2


def size_correlations(
    scores: Sequence[float], costs: Mapping[str, Sequence[int]], capacity: Sequence[float | None]
) -> dict[str, float | None]:
    """Kendall's tau of scores with each of `COSTS` of the same candidates, with their rank sum and with their capacity.

    Args:
        capacity: of each; None where a study of an earlier version did not keep it, and then there is no tau.
    """
    known = [c for c in capacity if c is not None]
    sizes: dict[str, Sequence[float]] = {cost: costs[cost] for cost in COSTS}
    sizes[RANK_SUM] = baselines(costs["macs"], costs["params"], costs["depth"], [0.0] * len(scores))[RANK_SUM]
    taus = {name: kendall(scores, size) for name, size in sizes.items()}
    return {**taus, CAPACITY: kendall(scores, known) if len(known) == len(scores) else None}
