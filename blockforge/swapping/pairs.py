"""What alternatives cost together: single scores, and what each pair adds, which single passes tell too.

To second order, the Kullback-Leibler divergence of the answers is half the square of how far their logarithms move, in
the metric of the network's own probabilities. Moves of several alternatives add up as far as each leaves the others'
alone; the square of a sum is the sum of the squares and of the products of all pairs. So each pass keeps how far the
answers moved, and the products say which changes are worse together than each alone, or mend each other.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blockforge.swapping.scores import Score
from blockforge.swapping.slots import Alternative
from blockforge.swapping.solve import best
from blockforge.swapping.ties import NONE, Ties

_TURNS = 4


@dataclass(frozen=True)
class Losses:
    """What combinations cost in accuracy, estimated.

    Attributes:
        alone: of each alternative.
        pairs: (alternatives, alternatives), what two add together; 0 where they cannot stand together.
    """

    alone: Sequence[float]
    pairs: npt.NDArray[np.float64]

    @classmethod
    def of(cls, alternatives: Sequence[Alternative], scores: Sequence[Score]) -> Losses:
        """From scores that say how far the answers moved; without, pairs add nothing."""
        if not all(score.moved for score in scores):
            return cls([s.kl for s in scores], np.zeros((len(scores),) * 2))
        moves = np.stack([np.frombuffer(base64.b64decode(s.moved), "<f2") for s in scores]).astype(np.float64)
        pairs = moves @ moves.T
        pairs[_meeting(alternatives)] = 0.0
        return cls([s.kl for s in scores], pairs)

    def total(self, chosen: Sequence[int]) -> float:
        """Of a combination; never below 0."""
        picked = [*chosen]
        return max(0.0, sum(self.alone[i] for i in picked) + float(self.pairs[np.ix_(picked, picked)].sum()) / 2)

    def best(
        self, alternatives: Sequence[Alternative], least: Mapping[str, float], ties: Ties = NONE
    ) -> list[int] | None:
        """The best combination that is found: that of the smallest sum, and then again with what each alternative would
        add to the last one, as long as others come of it. Arguments are those of `solve.best`."""
        tried: list[list[int]] = []
        costs = np.array(self.alone, dtype=float)
        for turn in range(_TURNS):
            chosen = best(alternatives, np.maximum(costs, 0.0).tolist(), least, ties)
            if chosen is None or chosen in tried:
                break
            tried.append(chosen)
            added = np.array(self.alone) + self.pairs[:, chosen].sum(1)
            costs = (costs + added) / 2 if turn else added
        return min(tried, key=self.total, default=None)


def _meeting(alternatives: Sequence[Alternative]) -> npt.NDArray[np.bool_]:
    """(alternatives, alternatives): which cannot stand together, as `slots.meet` says."""
    slots = [a.slot for a in alternatives]
    place = {slot: i for i, slot in enumerate(dict.fromkeys(slots))}
    numbers, stages = np.array([place[slot] for slot in slots]), np.array([slot.stage for slot in slots])
    is_width = np.array([slot.is_width for slot in slots])
    beside = (numbers[:, None] == numbers) | is_width[:, None] | is_width
    meeting: npt.NDArray[np.bool_] = (stages[:, None] == stages) & beside
    return meeting
