"""Budgets: what a candidate exceeds, and what the smallest candidate of a space costs. Nothing is trained, and
nothing built but for a limit on the latency, which is measured once all others are kept.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError, SpecError
from blockforge.search.space import values
from blockforge.spec import Hole, Spec
from blockforge.units import LATENCY, Budget, figure, parse_budget

_TRIES = 200
_COSTS = ("macs", "params", "activation_bytes")
_SECONDS = 0.3
"""Of measuring one candidate's latency, at least seven calls."""


def as_budget(budget: Budget | str | Sequence[str] | None) -> Budget:
    """A budget, read from text if need be; None: no limits. Raises: BudgetError."""
    return budget if isinstance(budget, Budget) else parse_budget(budget) if budget else Budget()


def excess(arch: Architecture, budget: Budget) -> dict[str, float]:
    """How far `arch` lies over (above 0) or under each limit, as a share of the limit.

    The latency is measured, once for each architecture, and only where no other limit is exceeded.
    """
    found = {name: getattr(arch, name) / limit - 1 for name, limit in budget.limits.items()}
    if budget.latency_ms is not None and all(share <= 0 for share in found.values()):
        found[LATENCY] = measured_latency(arch, budget.device) / budget.latency_ms - 1
    return found


def over(arch: Architecture, budget: Budget) -> str:
    """`6.10G MACs against 5.00G MACs`, for every limit that is exceeded."""
    exceeded = [n for n, share in excess(arch, budget).items() if share > 0]
    return ", ".join(f"{_cost(arch, n, budget)} against {_limit(n, budget)}" for n in exceeded)


@functools.lru_cache(256)
def measured_latency(arch: Architecture, device: str | None) -> float:
    """Median milliseconds of one image in float32, on a device (None: the CPU), in this process.

    Raises: BudgetError if the device is not there.
    """
    from blockforge.api import build
    from blockforge.bench.profile import ProfileError, Setting, measure, pick_device

    try:
        place = pick_device(device or "cpu")
    except ProfileError as e:
        raise BudgetError(str(e)) from None
    return measure(build(arch, seed=0), Setting(1, "fp32"), place, _SECONDS).p50_ms


def check_budget(space: Spec, budget: Budget) -> Architecture:
    """A small candidate of `space` that lies within the budget.

    Raises: BudgetError that says what the smallest candidate costs, SpecError if no candidate compiles.
    """
    smallest = smallest_candidate(space, budget, enough=budget.latency_ms is None)
    if any(share > 0 for share in excess(smallest, budget).values()):
        costs = ", ".join(
            _cost(smallest, name, budget) for name in (*_COSTS, *([LATENCY] if budget.latency_ms else []))
        )
        raise BudgetError(
            f"no candidate of '{space.name}' fits in {budget}\n"
            f"  the smallest one found costs {costs}\n"
            "  hint: raise the budget, lower the ends of the space's holes, or state a smaller image: --size"
        )
    return smallest


def smallest_candidate(space: Spec, budget: Budget, enough: bool = False) -> Architecture:
    """The candidate furthest below `budget` (without limits: the one with the fewest MACs), as far as
    changing one hole at a time finds it.

    Args:
        enough: the first one found that keeps the limits will do.
    Raises: SpecError if no candidate that was tried compiles.
    """
    weight = _weight(budget)
    answers, best = _any_candidate(space)
    improved = True
    while improved:
        improved = False
        for hole in list(best.holes.values()):
            if enough and budget.limits and weight(best.arch)[0] <= 1:
                return best.arch
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
    """Smaller is further below the budget; where only the latency is limited, the MACs stand for it. They also
    break ties."""

    def weight(arch: Architecture) -> tuple[float, int]:
        return max((getattr(arch, n) / limit for n, limit in budget.limits.items()), default=0.0), arch.macs

    return weight


def _cost(arch: Architecture, name: str, budget: Budget) -> str:
    if name == LATENCY:
        return f"{measured_latency(arch, budget.device):.3g} ms"
    return figure(name, getattr(arch, name)) + " of activations" * (name == "activation_bytes")


def _limit(name: str, budget: Budget) -> str:
    return f"{budget.latency_ms:g} ms on {budget.device}" if name == LATENCY else figure(name, budget.limits[name])
