"""Several fidelities: candidates begin with a cheap stand-in for the objective, and the best 1/eta go up.

Promotion is asynchronous (ASHA, https://arxiv.org/abs/1810.05934): a worker never waits for a rung to fill. With
several objectives "best" is the non-dominated rank. Nothing is kept but trials: one that went up is a trial of its own,
which names the one below it.
"""

from __future__ import annotations

from blockforge.search.study.history import History
from blockforge.search.study.records import TrialRecord


def next_promotion(history: History, eta: int, last: bool) -> TrialRecord | None:
    """The candidate to go up now, from the highest rung that has one.

    Args:
        last: no further candidates come, so at least the best of each rung goes up.
    """
    for rung in reversed(range(len(history.rungs) - 1)):
        scored = history.rungs[rung]
        places = len(scored) // eta or int(last and bool(scored))
        if places <= len(history.promoted[rung]):
            continue
        for record in history.better(scored)[:places]:
            if record.number not in history.promoted[rung]:
                return record
    return None
