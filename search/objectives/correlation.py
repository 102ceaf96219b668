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
BASELINES = ("log MACs", "log params", "depth", RANK_SUM)
"""What size alone says, to be shown beside every score."""


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings; None where one is constant or there are fewer than two values."""
    x, y = (signs(v) for v in (a, b))
    pairs = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum() / pairs) if pairs else None


def signs(values: Sequence[float]) -> np.ndarray:
    """Which of two values is larger, for every pair: an n x n matrix of -1, 0, 1."""
    return np.sign(np.subtract.outer(v := np.asarray(values, float), v))


def baselines(macs: Sequence[int], params: Sequence[int], depth: Sequence[int]) -> dict[str, list[float]]:
    """The scores of `BASELINES` for candidates of known size. The rank sum adds the ranks by params and by depth."""
    ranks = rank(params) + rank(depth)
    logs = ([math.log(max(1, v)) for v in values] for values in (macs, params))
    return dict(zip(BASELINES, (*logs, [float(d) for d in depth], ranks.tolist()), strict=True))


def rank(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    v = np.asarray(values, float)
    return (v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) - 1) / 2


def size_correlations(scores: Sequence[float], costs: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """Kendall's tau of scores with each of `COSTS` of the same candidates, and with their rank sum."""
    sizes: dict[str, Sequence[float]] = {cost: costs[cost] for cost in COSTS}
    sizes[RANK_SUM] = baselines(costs["macs"], costs["params"], costs["depth"])[RANK_SUM]
    return {name: kendall(scores, size) for name, size in sizes.items()}
