"""Does a first rung throw out the bad tail and keep the good? Counted on a table of trainings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blockforge.console.text_table import Number, TextTable
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.fidelity.recall import MARGIN, RECALL, good, kept, share_needed
from blockforge.search.objectives.ranking import Estimate, estimate, resampled

ETAS = (2, 3, 4)


@dataclass(frozen=True)
class Rung:
    """What keeping the best share after some steps does.

    Attributes:
        steps: of the training that ranks.
        recalls: by eta, the share of the good that are among the best 1/eta; with its 95% bootstrap interval.
        dropped: by eta, the share of the bad that are not.
        needed: the smallest share to keep that holds 90% of the good.
        dropped_then: the share of the bad that is thrown out by that.
    """

    steps: int
    recalls: dict[int, Estimate]
    dropped: dict[int, float]
    needed: float
    dropped_then: float


@dataclass(frozen=True)
class Tail:
    """Rungs below the longest trainings, and how many networks are good."""

    rungs: tuple[Rung, ...]
    good: int
    networks: int


def measure_tail(table: Benchmark) -> Tail:
    """The rungs of a table. Good are networks whose mean after the longest training lies within a point of the best."""
    networks = list(table.networks)
    worth = np.array([table.value(n) for n in networks])
    wanted = good(worth)
    rungs = (_rung(s, np.array([table.value(n, s, seed=0) for n in networks]), wanted) for s in table.steps[:-1])
    return Tail(tuple(rungs), int(wanted.sum()), len(networks))


def _rung(steps: int, seen: np.ndarray, good: np.ndarray) -> Rung:
    recalls, dropped = {}, {}
    for eta in ETAS:
        again = (_recall(seen[rows], good[rows], eta) for rows in resampled(len(seen)) if good[rows].any())
        recalls[eta] = estimate(np.array([_recall(seen, good, eta), *again]))
        dropped[eta] = _dropped(seen, good, len(seen) // eta)
    needed = share_needed(seen, good)
    return Rung(steps, recalls, dropped, needed, _dropped(seen, good, round(needed * len(seen))))


def _dropped(seen: np.ndarray, good: np.ndarray, number: int) -> float:
    return 1 - float(kept(seen, number)[~good].mean()) if not good.all() else 1.0


def _recall(seen: np.ndarray, good: np.ndarray, eta: int) -> float:
    return float(kept(seen, len(seen) // eta)[good].mean())


def text_table(tail: Tail) -> TextTable:
    """A row a rung, to be printed by rich."""
    title = (
        f"Of {tail.networks} networks {tail.good} are good: less than {MARGIN:g} point below the best after the "
        "longest training. A rung keeps the best share: recall of the good, and how much of the bad goes"
    )
    shares = [Number(f"keep 1/{eta}:\nrecall, bad out") for eta in ETAS]
    shown = TextTable(Number("steps"), *shares, Number("90% recall:\nkeep, bad out"), title=title)
    for rung in tail.rungs:
        cells = [_cell(rung.recalls[eta], rung.dropped[eta]) for eta in ETAS]
        shown.add_row(str(rung.steps), *cells, f"{rung.needed:.0%}, {rung.dropped_then:.0%}")
    return shown


def _cell(recall: Estimate, dropped: float) -> str:
    known, low, high = recall
    return f"{known:.0%} ({low:.0%} {high:.0%}), {dropped:.0%}"


def summary(tail: Tail, wanted: Sequence[int] = ETAS) -> Iterator[str]:
    """Which rungs keep enough of the good."""
    ways = ((rung, eta) for rung in tail.rungs for eta in wanted if rung.recalls[eta][0] >= RECALL)
    held = [f"{rung.steps} steps, keeping 1/{eta}" for rung, eta in ways]
    yield f"At least {RECALL:.0%} of the good go up: {'; '.join(held) if held else 'from no rung'}."
