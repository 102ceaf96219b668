"""Budgets: what a candidate exceeds, and what the smallest candidate of a space costs. Nothing is trained, and
nothing built but for limits on the latency, which is measured, and on training memory, which is rehearsed: both once
all others are kept.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockforge.compiler import Architecture
from blockforge.compiler.candidates import compile_candidate
from blockforge.errors import BudgetError, SpecError
from blockforge.search.space.load import values
from blockforge.spec import Hole, Spec
from blockforge.spec.relations.repair import relations_of
from blockforge.units import (
    COSTS,
    DEPLOYED,
    LATENCY,
    LATENCY_DEPLOYED,
    TRAINING,
    Budget,
    figure,
    parse_budget,
    step_in_words,
)

_TRIES = 200
_MEASURED = (LATENCY, LATENCY_DEPLOYED, TRAINING)
"""Limits that the compiled graph does not tell, in the order in which they are asked."""
_SECONDS = 0.3
"""Of measuring one candidate's latency, at least seven calls."""


def as_budget(budget: Budget | Mapping[str, Any] | str | Sequence[str] | None) -> Budget:
    """A budget, read from text if need be, or from what `Budget.as_dict` gave; None: no limits. Raises: BudgetError."""
    if isinstance(budget, Mapping):
        try:
            return Budget(**budget)
        except TypeError:
            known = ", ".join(field.name for field in dataclasses.fields(Budget))
            raise BudgetError(f"no limits are named {', '.join(budget)}\n  hint: limits: {known}") from None
    return budget if isinstance(budget, Budget) else parse_budget(budget) if budget else Budget()


def too_small(budget: Budget) -> str:
    """What to do where no candidate keeps a budget."""
    ways = ["raise the budget", "lower the ends of the space's holes", "state a smaller image (--size)"]
    if budget.training_bytes is not None:
        if (batch := budget.step["batch"]) > 1:
            ways.append(f"take fewer images a step (batch={batch // 2})")
        if not budget.step["checkpointing"]:
            ways.append("train with checkpointing (4GB:train,checkpointing)")
    if budget.limits:
        ways.append("scale the widths of each candidate to the budget: --fit 0.97")
    return f"{', '.join(ways[:-1])}, or {ways[-1]}"


def excess(arch: Architecture, budget: Budget) -> dict[str, float]:
    """How far `arch` lies over (above 0) or under each limit, as a share of the limit.

    The latency is measured and a training step rehearsed, once for each architecture, and only where no limit before
    is exceeded.

    Raises: CostError if the training memory is not known.
    """
    shares = {name: cost_of(arch, name) / limit - 1 for name, limit in budget.limits.items()}
    for name, (ms, device) in budget.latencies.items():
        if _kept(shares):
            shares[name] = measured_latency(_form(arch, name), device) / ms - 1
    if budget.training_bytes is not None and _kept(shares):
        shares[TRAINING] = training_bytes(arch, budget) / budget.training_bytes - 1
    return shares


def cost_of(arch: Architecture, name: str) -> int:
    """A cost under its name in `Budget.limits`: the architecture's figure, or its deployed form's."""
    cost: int = getattr(_form(arch, name), name.removeprefix(DEPLOYED))
    return cost


def _form(arch: Architecture, name: str) -> Architecture:
    """The form that a limit of this name is on."""
    return arch.deployed if name.startswith(DEPLOYED) else arch


def _kept(shares: Mapping[str, float]) -> bool:
    return all(share <= 0 for share in shares.values())


def training_bytes(arch: Architecture, budget: Budget) -> int:
    """What the training step of a budget holds; equal networks are asked once."""
    return arch.training_memory(**budget.step).total


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
    from blockforge.measure.profile import ProfileError, Setting, measure, pick_device

    try:
        place = pick_device(device or "cpu")
    except ProfileError as e:
        raise BudgetError(str(e)) from None
    return measure(build(arch, seed=0), Setting(1, "fp32"), place, _SECONDS).p50_ms


def check_budget(space: Spec, budget: Budget, share: float | None = None) -> Architecture:
    """A small candidate of `space` that lies within the budget: proof that there is one.

    Args:
        share: of the budget, that widths are scaled to, where they are.
    Raises: BudgetError that says what the smallest candidate costs, SpecError if no candidate compiles.
    """
    if share is not None:  # widths may then be below those of the space
        return smallest_candidate(space, budget.compiled, enough=True).arch
    smallest = smallest_candidate(space, budget, enough=not budget.latencies).arch
    if not _kept(shares := excess(smallest, budget)):
        further = [name for name in (*budget.limits, *_MEASURED) if name in shares and name not in COSTS]
        costs = ", ".join(_cost(smallest, name, budget) for name in (*COSTS, *further))
        raise BudgetError(
            f"no candidate of '{space.name}' fits in {budget}\n"
            f"  the smallest one found costs {costs}\n"
            f"  hint: {too_small(budget)}"
        )
    return smallest


def smallest_candidate(space: Spec, budget: Budget, enough: bool = False) -> Candidate:
    """The candidate furthest below `budget` (without limits: the one with the fewest MACs), as far as
    changing one hole at a time finds it.

    A rehearsal of each would take minutes: for training memory the ones smallest in each cost stand in, the first of
    them that keeps the budget, or the one that comes nearest.

    Args:
        enough: the first one found that keeps the limits will do.
    Raises: SpecError if no candidate that was tried compiles.
    """
    if budget.training_bytes is None:
        return _descend(space, _weight(budget), enough and bool(budget.limits))
    candidates: list[tuple[float, Candidate]] = []
    for cost in COSTS:
        small = _descend(space, _least(cost, budget))
        shares = excess(small.arch, budget)
        if _kept(shares) or TRAINING not in shares:  # in which case other costs help nothing
            return small
        candidates.append((shares[TRAINING], small))
    return min(candidates, key=lambda item: item[0])[1]


def _descend(space: Spec, weight: Weight, enough: bool = False) -> Candidate:
    """The candidate of the least weight, as far as changing one hole at a time finds it."""
    answers, best = _any_candidate(space)
    improved = True
    while improved:
        improved = False
        for hole in list(best.holes.values()):
            if enough and weight(best.arch)[0] <= 1:
                return best
            for value in values(hole):
                tried = _compile(space, answers, {hole.name: value})
                if tried is not None and weight(tried.arch) < weight(best.arch):
                    best, improved = tried, True
                    answers = {**answers, **tried.answers}
    return best


Weight = Callable[[Architecture], tuple[float, ...]]


@dataclass(frozen=True)
class Candidate:
    """A compiled candidate, the holes that were asked for it, and what they were answered."""

    arch: Architecture
    holes: dict[str, Hole]
    answers: dict[str, Any]


def _any_candidate(space: Spec) -> tuple[dict[str, Any], Candidate]:
    """The candidate of all first values, or a random one that compiles."""
    try:
        return {}, _attempt(space, {}, _first)
    except SpecError as first:
        rng, errors = random.Random(0), [first]
        for _ in range(_TRIES):
            answers: dict[str, Any] = {}

            def ask(hole: Hole, answers: dict[str, Any] = answers) -> Any:
                return answers.setdefault(hole.name, rng.choice(values(hole)))

            try:
                candidate = _attempt(space, {}, ask)
            except SpecError as e:
                errors.append(e)
            else:
                return candidate.answers, candidate
        raise none_valid(space, errors) from None


def _compile(space: Spec, answers: Mapping[str, Any], changed: Mapping[str, Any]) -> Candidate | None:
    try:
        return _attempt(space, {**answers, **changed}, _first, changed)
    except SpecError:
        return None


def _attempt(
    space: Spec, answers: Mapping[str, Any], other: Callable[[Hole], Any], fixed: Mapping[str, Any] | None = None
) -> Candidate:
    asked: dict[str, tuple[Hole, Any]] = {}

    def asking(answers: Mapping[str, Any]) -> Callable[[Hole], Any]:
        asked.clear()

        def ask(hole: Hole) -> Any:
            asked[hole.name] = hole, answers[hole.name] if hole.name in answers else other(hole)
            return asked[hole.name][1]

        return ask

    arch = compile_candidate(space, asking(answers), fixed, asking)
    return Candidate(arch, {n: hole for n, (hole, _) in asked.items()}, {n: value for n, (_, value) in asked.items()})


def none_valid(space: Spec, errors: Sequence[SpecError]) -> SpecError:
    """What to say of a space of which no candidate that was tried compiles: what is wrong, where that is certain; else
    that none was found."""
    last = errors[-1]
    first = last.diagnostics[0]
    if first.code == "require" and relations_of(space).verdict() == "impossible":
        text = (
            f"no values of the holes of '{space.name}' keep its relations together; one of them says: {first.message}"
        )
        return SpecError([dataclasses.replace(first, message=text, hint="change the relations, or the holes' ranges")])
    if len({(e.diagnostics[0].code, e.diagnostics[0].path) for e in errors}) == 1 and first.code != "require":
        return last
    text = f"none of {len(errors)} candidates of '{space.name}' that were tried is valid: that proves nothing yet"
    hint = "widen the holes, loosen the relations, or name a valid candidate with --start"
    return SpecError([dataclasses.replace(first, message=f"{text}; the last one: {first.message}", hint=hint)])


def _first(hole: Hole) -> Any:
    return values(hole)[0]


def _weight(budget: Budget) -> Weight:
    """Smaller is further below the budget; where only the latency is limited, the MACs stand for it. They also
    break ties."""

    def weight(arch: Architecture) -> tuple[float, int]:
        return max((cost_of(arch, n) / limit for n, limit in budget.limits.items()), default=0.0), arch.macs

    return weight


def _least(cost: str, budget: Budget) -> Weight:
    """Smaller has less of one cost, among those that keep the limits; the MACs break ties."""
    share = _weight(budget)
    return lambda arch: (max(1.0, share(arch)[0]), getattr(arch, cost), arch.macs)


def _cost(arch: Architecture, name: str, budget: Budget) -> str:
    if name in budget.latencies:
        ms = measured_latency(_form(arch, name), budget.latencies[name][1])
        return f"{ms:.3g} ms" + " deployed" * name.startswith(DEPLOYED)
    if name == TRAINING:
        return f"{figure(name, training_bytes(arch, budget))} of training memory"
    return figure(name, cost_of(arch, name)) + " of activations" * name.endswith("activation_bytes")


def _limit(name: str, budget: Budget) -> str:
    if name in budget.latencies:
        ms, device = budget.latencies[name]
        return f"{ms:g} ms on {device}"
    if name == TRAINING:
        return f"{figure(name, budget.training_bytes or 0)} ({step_in_words(budget)})"
    return figure(name, budget.limits[name])
