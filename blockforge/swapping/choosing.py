"""The alternatives for a budget: sums over slots by the solver, what is no sum asked of the whole network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError
from blockforge.search.budget import cost_of, excess, measured_latency, over
from blockforge.swapping.edits import edited
from blockforge.swapping.memory import too_large
from blockforge.swapping.pairs import Losses
from blockforge.swapping.slots import Alternative
from blockforge.swapping.solve import most_saved
from blockforge.swapping.targets import is_sum, to_save
from blockforge.swapping.ties import Refused, Ties
from blockforge.units import DEPLOYED, LATENCY, Budget

_STEP = 0.01
"""Of the network's cost, that goes beyond what the last try saved where that was not enough."""


def choose(
    arch: Architecture, alternatives: Sequence[Alternative], losses: Losses, name: str, budget: Budget, ties: Ties
) -> list[int]:
    """The numbers of the alternatives for a budget. What the compiled graph tells is kept exactly. Latency is a sum
    over slots as far as the branches alone tell; as long as the whole network is slower than its limit, more must go.
    Where training memory is exceeded, more multiply-adds must go. At last the smallest networks are asked.

    Args:
        losses: in accuracy. name: of the budget, as it was written. ties: between alternatives.
    Raises: BudgetError.
    """
    least: dict[str, float] = {**to_save(arch, budget), **_latency_to_save(arch, budget, alternatives)}

    def find(ties: Ties) -> list[int] | None:
        return losses.best(alternatives, least, ties)

    while True:
        chosen, ties = _kept(arch, alternatives, budget, ties, find)
        if chosen is None:
            break
        exceeded = _exceeded(arch, alternatives, chosen, budget)
        if not exceeded:
            return chosen
        cost = LATENCY if LATENCY in exceeded and LATENCY in least else "macs"
        missing = exceeded[LATENCY] * (budget.latency_ms or 0) if cost == LATENCY else 0.0
        saved = ties.saved(alternatives, chosen, cost)
        least[cost] = saved + max(missing, _STEP * _whole(arch, cost, budget))
    return _smallest(arch, alternatives, name, budget, ties)


def check_reachable(
    arch: Architecture, alternatives: Sequence[Alternative], wanted: Sequence[tuple[str, Budget]], ties: Ties
) -> None:
    """Refuse what no combination reaches, before anything is scored: what the compiled graph tells exactly; latency and
    training memory by the networks within that which are smallest in one cost. Raises: BudgetError."""
    for name, budget in wanted:
        _smallest(arch, alternatives, name, budget, ties)


def _smallest(
    arch: Architecture, alternatives: Sequence[Alternative], name: str, budget: Budget, ties: Ties
) -> list[int]:
    """A combination within a budget, one of those that save most of a cost. Raises: BudgetError: there is none."""
    least = to_save(arch, budget)
    for cost in (LATENCY, "macs", "params"):
        if all(cost in a.saved for a in alternatives):
            find = functools.partial(most_saved, alternatives, cost, least=least)
            chosen, ties = _kept(arch, alternatives, budget, ties, find)
            if chosen is None:
                break
            if not _exceeded(arch, alternatives, chosen, budget):
                return chosen
    raise BudgetError(_unreached(arch, alternatives, name, budget, ties))


def _kept(
    arch: Architecture,
    alternatives: Sequence[Alternative],
    budget: Budget,
    ties: Ties,
    find: Callable[[Ties], list[int] | None],
) -> tuple[list[int] | None, Ties]:
    """What is found under ties by which the compiled graph keeps all limits on it, and these. None: nothing is."""
    while (chosen := find(ties)) is not None:
        other = _with(arch, alternatives, chosen)
        exceeded = [limit for limit, most in budget.limits.items() if cost_of(other, limit) > most]
        if not exceeded:
            break
        ties = ties.without(
            refused
            for limit in exceeded
            for refused in _reasons(arch, alternatives, chosen, other, limit, budget.limits[limit])
        )
    return chosen, ties


def _reasons(
    arch: Architecture,
    alternatives: Sequence[Alternative],
    chosen: Sequence[int],
    other: Architecture,
    limit: str,
    most: int,
) -> Iterable[Refused]:
    """What of a combination is not to come again, for its network exceeds a limit."""
    if is_sum(limit):  # by what the solver takes for equal
        picked = {*chosen}
        return [Refused(tuple(chosen), tuple(i for i in range(len(alternatives)) if i not in picked))]
    form = other.deployed if limit.startswith(DEPLOYED) else other
    return too_large(arch, alternatives, chosen, form, most)


def _with(arch: Architecture, alternatives: Sequence[Alternative], chosen: Sequence[int]) -> Architecture:
    return compile_spec(edited(arch.source, [alternatives[i] for i in chosen]))


def _exceeded(
    arch: Architecture, alternatives: Sequence[Alternative], chosen: Sequence[int], budget: Budget
) -> dict[str, float]:
    """By how much of it a combination exceeds each limit, of those that it does."""
    shares = excess(_with(arch, alternatives, chosen), budget)
    return {limit: share for limit, share in shares.items() if share > 0}


def _latency_to_save(arch: Architecture, budget: Budget, alternatives: Sequence[Alternative]) -> Mapping[str, float]:
    if budget.latency_ms is None or not all(LATENCY in a.saved for a in alternatives):
        return {}
    return {LATENCY: max(0.0, _whole(arch, LATENCY, budget) - budget.latency_ms)}


def _whole(arch: Architecture, cost: str, budget: Budget) -> float:
    return measured_latency(arch, budget.device) if cost == LATENCY else float(getattr(arch, cost))


def _unreached(arch: Architecture, alternatives: Sequence[Alternative], name: str, budget: Budget, ties: Ties) -> str:
    """Says what the smallest network has that there is, in a cost whose limit it exceeds."""
    text = f"no combination of thinner and fewer branches reaches {name}"
    timed = [LATENCY] * (budget.latency_ms is not None and all(LATENCY in a.saved for a in alternatives))
    for limit in (*budget.limits, *timed, "macs"):
        smallest = least_of(arch, alternatives, limit, ties)
        if exceeded := over(smallest, _only(budget, limit)):
            return f"{text}: the smallest network has {exceeded}"
    return f"{text}: each of its limits is reached, but not all at once"


def _only(budget: Budget, limit: str) -> Budget:
    """The budget with one of the limits on the compiled graph alone; as it is, if it has none of that name."""
    if limit not in budget.limits:
        return budget
    return Budget(**{limit: budget.limits[limit]})  # type: ignore[arg-type]


def least_of(arch: Architecture, alternatives: Sequence[Alternative], cost: str, ties: Ties) -> Architecture:
    """The network with the least of a cost that there is."""
    if cost == LATENCY or is_sum(cost):
        return _with(arch, alternatives, most_saved(alternatives, cost, ties) or [])
    least = arch
    while True:
        limit = Budget(**{cost: cost_of(least, cost) - 1})  # type: ignore[arg-type]
        chosen, ties = _kept(arch, alternatives, limit, ties, functools.partial(most_saved, alternatives, "macs"))
        if chosen is None:
            return least
        least = _with(arch, alternatives, chosen)
