"""Of the good networks, how many does a first rung keep? Good are those that lie close to the best in the end."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

MARGIN = 1.0
"""Points below the best from which on a network is bad."""
RECALL = 0.9
"""The share of the good that a first rung is to keep."""
FEWEST = 5
"""Good networks by which that can be told."""
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def good(worth: Values) -> Mask:
    """Which of these accuracies, in percent, lie within `MARGIN` of the best."""
    mask: Mask = worth > worth.max() - MARGIN
    return mask


def kept(seen: Values, number: int) -> Mask:
    """Which are among the best `number` as a rung sees them, and one at least."""
    mask = np.zeros(len(seen), bool)
    mask[np.argsort(-seen, kind="stable")[: max(1, number)]] = True
    return mask


def share_needed(seen: Values, is_good: Mask) -> float:
    """The smallest share of the networks, the best first as a rung sees them, that holds `RECALL` of the good."""
    places = np.flatnonzero(is_good[np.argsort(-seen, kind="stable")])  # of the good, the best first
    return float(places[math.ceil(RECALL * len(places)) - 1] + 1) / len(seen)
