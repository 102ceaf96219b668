"""The best combination of alternatives under limits: an integer programme, solved exactly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import numpy.typing as npt

from blockforge.swapping.slots import Alternative

Row = npt.NDArray[np.float64]


def best(
    alternatives: Sequence[Alternative],
    scores: Sequence[float],
    least: Mapping[str, float],
    together: Sequence[Sequence[int]] = (),
) -> list[int] | None:
    """The numbers of the alternatives whose scores have the smallest sum, at most one a slot; a stage becomes narrower
    or its branches change, not both.

    Args:
        scores: what each costs in accuracy; leaving a slot as it is costs nothing.
        least: what must be saved of each cost.
        together: alternatives of which not all may be chosen.
    Returns: None if no combination saves so much.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    number = len(alternatives)
    rows: list[Row] = []
    upper: list[float] = []
    for name, saved in least.items():
        rows.append(-np.array([a.saved[name] for a in alternatives], dtype=float))
        upper.append(-saved)
    widths = {i: alternatives[i].slot.stage for i in range(number) if alternatives[i].slot.is_width}
    for slot, members in groupby(range(number), key=lambda i: alternatives[i].slot):
        rows.append(_row(number, [*members, *(i for i, stage in widths.items() if stage == slot.stage)]))
        upper.append(1.0)
    for group in together:
        rows.append(_row(number, group))
        upper.append(len(group) - 1.0)
    scales = np.array([max(1.0, float(np.abs(row).max())) for row in rows])
    limits = LinearConstraint(np.array(rows) / scales[:, None], -np.inf, np.array(upper) / scales)
    costs = np.array(scores) / max(1e-30, *map(abs, scores))
    with _stdout_to_stderr():
        solved = milp(costs, constraints=limits, integrality=np.ones(number), bounds=Bounds(0, 1))
    return [i for i in range(number) if solved.x[i] > 0.5] if solved.x is not None else None


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS writes lines of its own to standard output now and then, past Python; they are no part of a command's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def most_saved(alternatives: Sequence[Alternative], cost: str, together: Sequence[Sequence[int]] = ()) -> list[int]:
    """The numbers of the alternatives that together save most of a cost."""
    return best(alternatives, [-float(a.saved[cost]) for a in alternatives], {}, together) or []


def _row(number: int, members: Sequence[int]) -> Row:
    row = np.zeros(number)
    row[list(members)] = 1.0
    return row
