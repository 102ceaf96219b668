"""Scores as numbers: what counts as one, what tells objectives apart, and how far a ranking is one by size.

No training-free score is a measure of accuracy. Most of them grow with the network, so every report shows how far
the score orders the candidates as their size alone would (`size_correlations`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blockforge.compiler import Architecture
from blockforge.search.objectives._network import ScoreError as ScoreError
from blockforge.search.study.records import COSTS, TrialRecord

Objective = Callable[[Architecture], Any]
"""Gives a candidate's score, larger is better. Called only for candidates within the budget; what it raises
is kept with the trial, and the search goes on."""

RANK_SUM = "rank sum"
BASELINES = ("log MACs", "log params", "depth", RANK_SUM)
"""What size alone says, to be shown beside every score."""


def checked(score: Any) -> float:
    """The score as a float. Raises: ScoreError if it is not finite."""
    value = float(score)
    if not math.isfinite(value):
        raise ScoreError(f"the score is {value}")
    return value


def describe(objective: Callable[..., Any]) -> str:
    """What tells objectives apart: scores of different ones are never compared."""
    if dataclasses.is_dataclass(objective) and not isinstance(objective, type):
        return repr(objective)
    kind = type(objective)
    module = getattr(objective, "__module__", kind.__module__)
    return f"{module}:{getattr(objective, '__qualname__', kind.__qualname__)}"


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


def size_correlations(records: Sequence[TrialRecord]) -> dict[str, float | None]:
    """Kendall's tau of the score with each size, and with their rank sum, over scored candidates."""
    scored = [r for r in records if r.state == "scored"]
    sizes = {cost: [getattr(r, cost) for r in scored] for cost in COSTS}
    sizes[RANK_SUM] = baselines(sizes["macs"], sizes["params"], sizes["depth"])[RANK_SUM]
    return {name: kendall([r.score or 0.0 for r in scored], size) for name, size in sizes.items()}
