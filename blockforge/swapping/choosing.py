"""The alternatives for a budget: sums over slots by the solver, what is no sum asked of the whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError
from blockforge.search.budget import excess, measured_latency, over
from blockforge.swapping.edits import edited
from blockforge.swapping.pairs import Losses
from blockforge.swapping.slots import Alternative
from blockforge.swapping.solve import best, most_saved
from blockforge.swapping.targets import to_save
from blockforge.units import LATENCY, Budget

_STEP = 0.01
"""Of the network's cost, that goes beyond what the last try saved where that was not enough."""


def not_all(arch: Architecture, alternatives: Sequence[Alternative]) -> list[list[int]]:
    """Alternatives of which one must stay out: a layer that others read through `connect` stays, and one of a stage
    without a downsample."""
    skips = {a.slot.name: i for i, a in enumerate(alternatives) if a.is_skip}
    groups = []
    for stage in arch.stages:
        plan = arch.plan.stages[stage.index]
        layers = [[node.name for node in layer.branches.values()] for layer in stage.layers]
        if plan.connect is not None:
            groups += layers
        elif plan.downsample is None:
            groups.append([name for names in layers for name in names])
    return [[skips[name] for name in names] for names in groups if names and all(name in skips for name in names)]


def choose(
    arch: Architecture,
    alternatives: Sequence[Alternative],
    losses: Losses,
    name: str,
    budget: Budget,
    linked: Sequence[Sequence[int]],
) -> list[int]:
    """The numbers of the alternatives for a budget. Latency is a sum over slots as far as the branches alone tell; as
    long as the whole network is slower than its limit, more must go. Where another limit is exceeded that is no sum
    (memory), more multiply-adds must go. At last the smallest network is asked.

    Args:
        losses: in accuracy. name: of the budget, as it was written. linked: as `solve.best` takes them.
    Raises: BudgetError.
    """
    least: dict[str, float] = {**to_save(arch, budget), **_latency_to_save(arch, budget, alternatives)}
    while (chosen := losses.best(alternatives, least, linked)) is not None:
        exceeded = {limit: share for limit, share in _excess(arch, alternatives, chosen, budget).items() if share > 0}
        if not exceeded:
            return chosen
        cost = LATENCY if LATENCY in exceeded and LATENCY in least else "macs"
        saved = sum(alternatives[i].saved[cost] for i in chosen)
        missing = exceeded[LATENCY] * (budget.latency_ms or 0) if cost == LATENCY else 0.0
        least[cost] = saved + max(missing, _STEP * _whole(arch, cost, budget))
    smallest = most_saved(alternatives, _decisive(budget, alternatives), linked)
    if any(share > 0 for share in _excess(arch, alternatives, smallest, budget).values()):
        raise BudgetError(_unreached(arch, alternatives, name, budget, linked))
    return smallest


def check_reachable(
    arch: Architecture,
    alternatives: Sequence[Alternative],
    wanted: Sequence[tuple[str, Budget]],
    linked: Sequence[Sequence[int]],
) -> None:
    """Refuse what no combination reaches, before anything is scored: what is a sum over slots exactly; latency and
    memory by the network with the least latency, or the fewest multiply-adds. Raises: BudgetError."""
    for name, budget in wanted:
        smallest = most_saved(alternatives, _decisive(budget, alternatives), linked)
        is_sum_kept = best(alternatives, [0.0] * len(alternatives), to_save(arch, budget), linked) is not None
        only_sums = not (budget.latencies or budget.training_bytes or len(budget.limits) > len(to_save(arch, budget)))
        if is_sum_kept and (
            only_sums or all(share <= 0 for share in _excess(arch, alternatives, smallest, _not_sums(budget)).values())
        ):
            continue
        raise BudgetError(_unreached(arch, alternatives, name, budget, linked))


def _not_sums(budget: Budget) -> Budget:
    """The budget without what is a sum over slots: another network may be the smallest in that."""
    return Budget(**{n: v for n, v in budget.as_dict().items() if n not in ("macs", "params")})  # type: ignore[arg-type]


def _excess(
    arch: Architecture, alternatives: Sequence[Alternative], chosen: Sequence[int], budget: Budget
) -> dict[str, float]:
    return excess(compile_spec(edited(arch.source, [alternatives[i] for i in chosen])), budget)


def _latency_to_save(arch: Architecture, budget: Budget, alternatives: Sequence[Alternative]) -> Mapping[str, float]:
    if budget.latency_ms is None or _decisive(budget, alternatives) != LATENCY:
        return {}
    return {LATENCY: max(0.0, _whole(arch, LATENCY, budget) - budget.latency_ms)}


def _whole(arch: Architecture, cost: str, budget: Budget) -> float:
    return measured_latency(arch, budget.device) if cost == LATENCY else float(getattr(arch, cost))


def _decisive(budget: Budget, alternatives: Sequence[Alternative]) -> str:
    """The cost whose least stands for the smallest network."""
    return LATENCY if budget.latency_ms is not None and all(LATENCY in a.saved for a in alternatives) else "macs"


def _unreached(
    arch: Architecture, alternatives: Sequence[Alternative], name: str, budget: Budget, linked: Sequence[Sequence[int]]
) -> str:
    picked = most_saved(alternatives, _decisive(budget, alternatives), linked)
    smallest = compile_spec(edited(arch.source, [alternatives[i] for i in picked]))
    text = f"no combination of thinner and fewer branches reaches {name}"
    return f"{text}: the smallest network has {over(smallest, budget) or smallest.totals}"
