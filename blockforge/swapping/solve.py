"""The best combination of alternatives under limits: an integer programme, solved exactly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np

from blockforge.swapping.slots import Alternative
from blockforge.swapping.ties import NONE, Ties

Row = tuple[Mapping[int, float], float]
"""Numbers of variables with their factors, and what their sum may be at most. Variables are whether an alternative is
chosen, and behind them whether both of two are that overlap."""


def best(
    alternatives: Sequence[Alternative], scores: Sequence[float], least: Mapping[str, float], ties: Ties = NONE
) -> list[int] | None:
    """The numbers of the alternatives whose scores have the smallest sum, at most one a slot; a stage becomes narrower
    or its branches change, not both.

    Args:
        scores: what each costs in accuracy; leaving a slot as it is costs nothing.
        least: what must be saved of each cost.
        ties: what else holds of combinations.
    Returns: None if no combination saves so much.
    """
    return _solved(alternatives, [*scores, *(0.0 for _ in ties.overlaps)], least, ties)


def most_saved(
    alternatives: Sequence[Alternative], cost: str, ties: Ties = NONE, *, least: Mapping[str, float] | None = None
) -> list[int] | None:
    """The numbers of the alternatives that together save most of a cost. Arguments are those of `best`."""
    saved = [-float(a.saved[cost]) for a in alternatives]
    twice = [float(overlap.costs.get(cost, 0)) for overlap in ties.overlaps]
    return _solved(alternatives, [*saved, *twice], least or {}, ties)


def _solved(
    alternatives: Sequence[Alternative], costs: Sequence[float], least: Mapping[str, float], ties: Ties
) -> list[int] | None:
    """`costs`: of each variable."""
    from scipy.optimize import Bounds, milp

    number = len(alternatives)
    rows = [*_savings(alternatives, least, ties), *_one_a_slot(alternatives), *_tied(number, ties)]
    scaled = np.array(costs) / max(1e-30, *map(abs, costs))
    whole = np.arange(len(scaled)) < number  # whether both of two are chosen follows from each
    options = {"mip_rel_gap": 0.0}  # else what is within 0.01% of the best is taken for it
    with _without_stdout():
        solved = milp(
            scaled, constraints=_limits(rows, len(scaled)), integrality=whole, bounds=Bounds(0, 1), options=options
        )
    return [i for i in range(number) if solved.x[i] > 0.5] if solved.x is not None else None


def _savings(alternatives: Sequence[Alternative], least: Mapping[str, float], ties: Ties) -> Iterator[Row]:
    """What must be saved of each cost."""
    number = len(alternatives)
    for name, saved in least.items():
        terms = {i: -float(a.saved[name]) for i, a in enumerate(alternatives)}
        terms |= {number + i: float(overlap.costs.get(name, 0)) for i, overlap in enumerate(ties.overlaps)}
        yield terms, -saved


def _one_a_slot(alternatives: Sequence[Alternative]) -> Iterator[Row]:
    """Those of a slot, and the widths of its stage."""
    widths: dict[int, list[int]] = {}
    for i, alternative in enumerate(alternatives):
        if alternative.slot.is_width:
            widths.setdefault(alternative.slot.stage, []).append(i)
    for slot, members in groupby(range(len(alternatives)), key=lambda i: alternatives[i].slot):
        yield dict.fromkeys([*members, *widths.get(slot.stage, ())], 1.0), 1.0


def _tied(number: int, ties: Ties) -> Iterator[Row]:
    for refused in ties.refused:
        terms = dict.fromkeys(refused.chosen, 1.0) | dict.fromkeys(refused.absent, -1.0)
        yield terms, len(refused.chosen) - 1.0
    for both, overlap in enumerate(ties.overlaps, number):
        yield {overlap.one: 1.0, overlap.other: 1.0, both: -1.0}, 1.0
        if min(overlap.costs.values()) < 0:  # together they save more: only where both are chosen
            yield {both: 1.0, overlap.one: -1.0}, 0.0
            yield {both: 1.0, overlap.other: -1.0}, 0.0


def _limits(rows: Sequence[Row], columns: int) -> Any:
    """Rows as scipy takes them, scaled to factors of 1 at most."""
    from scipy.optimize import LinearConstraint
    from scipy.sparse import csr_array

    scales = [max(1.0, *map(abs, terms.values())) if terms else 1.0 for terms, _ in rows]
    factors = [factor / scale for (terms, _), scale in zip(rows, scales, strict=True) for factor in terms.values()]
    at = [column for terms, _ in rows for column in terms]
    ends = np.cumsum([0, *(len(terms) for terms, _ in rows)])
    upper = np.array([limit for _, limit in rows]) / scales
    return LinearConstraint(csr_array((factors, at, ends), shape=(len(rows), columns)), -np.inf, upper)


@contextmanager
def _without_stdout() -> Iterator[None]:
    """HiGHS writes names of its own functions to standard output now and then, past Python: they are no part of a
    command's output, and say nothing to a user."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
