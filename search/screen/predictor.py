"""What networks may be worth, learnt from those that were evaluated: a Gaussian process on the figures of their graphs.

Places are predicted and not values: of those known, 0 is the worst and 1 the best. A network that did not train at all
then weighs no more than any other, and several objectives are of one size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from blockforge.extras import need
from blockforge.search.objectives.correlation import rank
from blockforge.search.study import pareto

Row = Mapping[str, float]
Places = npt.NDArray[np.float64]
"""A row a network, a column an objective."""
_NOISE = 0.1
"""Variance of what a place says of a network, of all that is known 1: another seed gives it another place."""
_FARTHEST = 2.0
"""Standard deviations from the mean of the known beyond which a figure is taken for no farther."""


def check_installed() -> None:
    """Raises: MissingExtraError where there is no scikit-learn."""
    need("screen", "sklearn")


class Predictor:
    """A Gaussian process (Rasmussen and Williams, 2006, https://gaussianprocess.org/gpml) on standardised figures, with
    a Matern kernel whose length grows as the distance of random networks does, with the root of the figures' number.
    Nothing is fitted but the places themselves: ten networks cannot say more.

    Args:
        rows: the figures of networks, by name; what one does not have is 0.
        values: of each, a column an objective; larger is better.
    """

    def __init__(self, rows: Sequence[Row], values: npt.ArrayLike) -> None:
        check_installed()
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern

        known = np.asarray(values, float).reshape(len(rows), -1)
        places = np.column_stack([rank(column.tolist()) / max(1, len(rows) - 1) for column in known.T])
        names = sorted({name for row in rows for name in row})
        figures = _matrix(rows, names)
        differ = np.ptp(figures, axis=0) > 0
        self._names = [name for name, does in zip(names, differ, strict=True) if does]
        self._mean, self._spread = figures[:, differ].mean(0), figures[:, differ].std(0)
        kernel = Matern(max(1.0, math.sqrt(len(self._names))), "fixed", nu=2.5)
        self._process = GaussianProcessRegressor(kernel, alpha=_NOISE, optimizer=None, normalize_y=True)
        self._process.fit(self._standardised(rows), places)

    def predict(self, rows: Sequence[Row]) -> Places:
        """The place of each among those known: 0 the worst, 1 the best, and what is thought better still lies above."""
        return np.asarray(self._process.predict(self._standardised(rows)), float).reshape(len(rows), -1)

    def _standardised(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """With a column of zeros, so that there is one where all known networks are alike."""
        figures = (_matrix(rows, self._names) - self._mean) / self._spread
        return np.column_stack([np.clip(figures, -_FARTHEST, _FARTHEST), np.zeros(len(rows))])


def _matrix(rows: Sequence[Row], names: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([[row.get(name, 0.0) for name in names] for row in rows], float).reshape(len(rows), len(names))


def likeliest(places: Places, seed: int) -> int:
    """The row with the best place; with several objectives one of those that no other row beats in all, drawn."""
    if places.shape[1] == 1:
        return int(np.argmax(places[:, 0]))
    front = np.flatnonzero(pareto.ranks(-places) == 0)
    return int(np.random.default_rng(seed).choice(front))
