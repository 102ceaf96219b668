"""How well one ranking agrees with another: Kendall's tau-b with bootstrap intervals, and with size partialled out.

Shapes: n things that are ranked, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from blockforge.search.objectives.correlation import signs

LEVEL = 0.95
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A value with its bootstrap interval; NaN where it is not defined (a constant ranking)."""

    value: float
    low: float
    high: float


class Rankings:
    """Rankings of the same things by name, resampled together, so that differences have intervals too.

    Args:
        columns: name -> n values.
        resamples, seed: of the bootstrap.
    """

    def __init__(self, columns: dict[str, Sequence[float]], resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.signs = {name: signs(values) for name, values in columns.items()}
        n = len(next(iter(columns.values())))
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        # How often each thing is in a resample; the first row is the sample itself.
        self.counts_Rn = np.vstack([np.ones(n), drawn]).astype(float)
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def taus(self, a: str, b: str) -> np.ndarray:
        """Kendall's tau-b of two rankings, in the sample and in every resample. Two copies of a thing are a tie."""
        key = (min(a, b), max(a, b))
        if key not in self._known:
            x, y = self.signs[a], self.signs[b]
            pairs = np.sqrt(self._sum(x * x) * self._sum(y * y))
            with np.errstate(invalid="ignore"):
                self._known[key] = self._sum(x * y) / pairs
        return self._known[key]

    def partials(self, a: str, b: str, fixed: str) -> np.ndarray:
        """Kendall's partial tau of two rankings, a third one held fixed."""
        ab, ag, bg = self.taus(a, b), self.taus(a, fixed), self.taus(b, fixed)
        with np.errstate(invalid="ignore", divide="ignore"):
            partial = (ab - ag * bg) / np.sqrt((1 - ag**2) * (1 - bg**2))
        return np.where(np.isfinite(partial), partial, math.nan)

    def tau(self, a: str, b: str) -> Estimate:
        return estimate(self.taus(a, b))

    def partial(self, a: str, b: str, fixed: str) -> Estimate:
        return estimate(self.partials(a, b, fixed))

    def gain(self, score: str, baseline: str, truth: str) -> Estimate:
        """By how much the tau of `score` with the truth exceeds the baseline's."""
        return estimate(self.taus(score, truth) - self.taus(baseline, truth))

    def _sum(self, pairs_nn: np.ndarray) -> np.ndarray:
        return ((self.counts_Rn @ pairs_nn) * self.counts_Rn).sum(1)


def resampled(n: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """R x n places of n things, drawn with replacement: what a value would be of others of their kind."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


def estimate(values_R: np.ndarray) -> Estimate:
    """The first value, with the percentile interval of the rest."""
    rest = values_R[1:][np.isfinite(values_R[1:])]
    if not len(rest) or not math.isfinite(values_R[0]):
        return Estimate(math.nan, math.nan, math.nan)
    low, high = np.quantile(rest, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values_R[0]), float(low), float(high))
