"""What networks may be worth, learnt from those that were evaluated: trees on the figures of their graphs.

Places are predicted and not values: of those known, 0 is the worst and 1 the best. A network that did not train at all
then weighs no more than any other, and several objectives are of one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from blockforge.extras import need
from blockforge.search.objectives.correlation import rank
from blockforge.search.study import pareto

Row = Mapping[str, float]
Places = npt.NDArray[np.float64]
"""A row a network, a column an objective."""
_TREES, _LEAF, _SHARE = 100, 2, 1 / 3
"""How many, the fewest networks of a leaf, and the share of the figures that each split looks at."""


def check_installed() -> None:
    """Raises: MissingExtraError where there is no scikit-learn."""
    need("screen", "sklearn")


class Predictor:
    """Extremely randomised trees (Geurts et al., 2006, https://doi.org/10.1007/s10994-006-6226-1).

    The same for the same rows in the same order.

    Args:
        rows: the figures of networks, by name; what one does not have is 0.
        values: of each, a column an objective; larger is better.
        seed: of the trees.
    """

    def __init__(self, rows: Sequence[Row], values: npt.ArrayLike, seed: int = 0) -> None:
        check_installed()
        from sklearn.ensemble import ExtraTreesRegressor

        self.names = sorted({name for row in rows for name in row})
        known = np.asarray(values, float).reshape(len(rows), -1)
        places = np.column_stack([rank(column.tolist()) / max(1, len(rows) - 1) for column in known.T])
        self._trees = ExtraTreesRegressor(_TREES, min_samples_leaf=_LEAF, max_features=_SHARE, random_state=seed)
        self._trees.fit(self._matrix(rows), places.squeeze(1) if places.shape[1] == 1 else places)

    def predict(self, rows: Sequence[Row]) -> Places:
        """The place of each among those known, 0 to 1; 1 is the best."""
        return np.asarray(self._trees.predict(self._matrix(rows)), float).reshape(len(rows), -1)

    def _matrix(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        return np.array([[row.get(name, 0.0) for name in self.names] for row in rows], float)


def likeliest(places: Places, seed: int) -> int:
    """The row with the best place; with several objectives one of those that no other row beats in all, drawn."""
    if places.shape[1] == 1:
        return int(np.argmax(places[:, 0]))
    front = np.flatnonzero(pareto.ranks(-places) == 0)
    return int(np.random.default_rng(seed).choice(front))
