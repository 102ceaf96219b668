"""Budgets: what a candidate exceeds, and what the smallest candidate of a space costs. Nothing is built."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError, SpecError
from blockforge.search.space import values
from blockforge.spec import Hole, Spec
from blockforge.units import Budget, format_bytes, format_count, parse_budget

_TRIES = 200
_UNITS = {"macs": "MACs", "params": "params", "activation_bytes": "of activations"}


def as_budget(budget: Budget | str | None) -> Budget:
    """A budget, read from text if need be; None: no limits. Raises: BudgetError."""
    return parse_budget(budget) if isinstance(budget, str) else budget or Budget()


def excess(arch: Architecture, budget: Budget) -> dict[str, float]:
    """How far `arch` lies over (above 0) or under each limit, as a share of the limit."""
    return {name: getattr(arch, name) / limit - 1 for name, limit in budget.limits.items()}


def over(arch: Architecture, budget: Budget) -> str:
    """`6.10G MACs against 5.00G`, for every limit that is exceeded."""
    exceeded = [n for n, share in excess(arch, budget).items() if share > 0]
    return ", ".join(f"{_cost(arch, n)} against {_figure(n, budget.limits[n])}" for n in exceeded)


def check_budget(space: Spec, budget: Budget) -> Architecture:
    """A small candidate of `space` that lies within the budget.

    Raises: BudgetError that says what the smallest candidate costs, SpecError if no candidate compiles.
    """
    smallest = smallest_candidate(space, budget)
    if any(share > 0 for share in excess(smallest, budget).values()):
        costs = ", ".join(_cost(smallest, name) for name in _UNITS)
        raise BudgetError(
            f"no candidate of '{space.name}' fits in {budget}\n"
            f"  the smallest one found costs {costs}\n"
            "  hint: raise the budget, lower the ends of the space's holes, or state a smaller image: --size"
        )
    return smallest


def smallest_candidate(space: Spec, budget: Budget) -> Architecture:
    """The candidate furthest below `budget` (without limits: the one with the fewest MACs), as far as
    changing one hole at a time finds it.

    Raises: SpecError if no candidate that was tried compiles.
    """
    weight = _weight(budget)
    answers, best = _any_candidate(space)
    improved = True
    while improved:
        improved = False
        for hole in list(best.holes.values()):
            for value in values(hole):
                tried = _compile(space, {**answers, hole.name: value})
                if tried is not None and weight(tried.arch) < weight(best.arch):
                    best, improved = tried, True
                    answers = {**answers, hole.name: value}
    return best.arch


class _Candidate:
    """A compiled candidate, and the holes that were asked for it."""

    def __init__(self, arch: Architecture, holes: dict[str, Hole]) -> None:
        self.arch, self.holes = arch, holes


def _any_candidate(space: Spec) -> tuple[dict[str, Any], _Candidate]:
    """The candidate of all first values, or a random one that compiles."""
    try:
        return {}, _attempt(space, {}, _first)
    except SpecError as first:
        rng = random.Random(0)
        for _ in range(_TRIES):
            answers: dict[str, Any] = {}

            def ask(hole: Hole, answers: dict[str, Any] = answers) -> Any:
                return answers.setdefault(hole.name, rng.choice(values(hole)))

            try:
                return answers, _attempt(space, answers, ask)
            except SpecError:
                continue
        raise first


def _compile(space: Spec, answers: Mapping[str, Any]) -> _Candidate | None:
    try:
        return _attempt(space, answers, _first)
    except SpecError:
        return None


def _attempt(space: Spec, answers: Mapping[str, Any], other: Callable[[Hole], Any]) -> _Candidate:
    holes: dict[str, Hole] = {}

    def ask(hole: Hole) -> Any:
        holes[hole.name] = hole
        return answers[hole.name] if hole.name in answers else other(hole)

    return _Candidate(compile_spec(space, ask=ask), holes)


def _first(hole: Hole) -> Any:
    return values(hole)[0]


def _weight(budget: Budget) -> Callable[[Architecture], tuple[float, int]]:
    """Smaller is further below the budget. The MACs break ties."""

    def weight(arch: Architecture) -> tuple[float, int]:
        return max(excess(arch, budget).values(), default=0.0), arch.macs

    return weight


def _cost(arch: Architecture, name: str) -> str:
    return f"{_figure(name, getattr(arch, name))} {_UNITS[name]}"


def _figure(name: str, value: float) -> str:
    return format_bytes(value) if name == "activation_bytes" else format_count(value)
