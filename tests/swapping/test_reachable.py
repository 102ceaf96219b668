"""Budgets that some combination reaches, and those that none does: all combinations of small networks are compiled."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from small_parent import NET

import blockforge as bf
from blockforge.errors import BudgetError
from blockforge.search.budget import cost_of
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.choosing import check_reachable, choose, least_of
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.pairs import Losses
from blockforge.swapping.slots import Alternative, meet, priced
from blockforge.swapping.ties import ties_of
from blockforge.swapping.widths import narrower_stages
from blockforge.units import Budget

WIDE_DOWN: dict[str, Any] = {
    **NET,
    "downsample": [{"op": "conv", "dim": "$out", "kernel_size": 3, "stride": 2}],
    "stages": [{"dim": 16, "depth": 1, "layers": "conv"}, {"dim": 24, "depth": 1, "layers": "attn"}],
}
"""Most of its multiply-adds lie between its stages: two narrower ones save much less than both."""
COSTS = ("macs", "params", "activation_bytes", "deployed_macs")
Combination = tuple[list[int], bf.Architecture]


@pytest.fixture(scope="module")
def arch() -> bf.Architecture:
    return bf.compile(written_out(WIDE_DOWN))


@pytest.fixture(scope="module")
def found(arch: bf.Architecture) -> list[Alternative]:
    own = [a for a in alternatives_of(arch, arch.source) if a.is_skip or a.label == "mlp_ratio 1"]
    both = sorted([*own, *narrower_stages(arch, arch.source)], key=lambda a: (a.slot.stage, a.slot.layer))
    return priced(arch, both, {"deployed_macs"})


@pytest.fixture(scope="module")
def combinations(arch: bf.Architecture, found: list[Alternative]) -> list[Combination]:
    slots = [[*members] for _, members in itertools.groupby(range(len(found)), key=lambda i: found[i].slot)]
    ties, every = ties_of(arch, found), []
    for choice in itertools.product(*[[None, *members] for members in slots]):
        picked = [i for i in choice if i is not None]
        pairs = itertools.combinations([found[i] for i in picked], 2)
        if ties.allow(picked) and not any(meet(a, b) for a, b in pairs):
            every.append((picked, bf.compile(edited(arch.source, [found[i] for i in picked]))))
    return every


def test_sums_are_exact(arch: bf.Architecture, found: list[Alternative], combinations: list[Combination]) -> None:
    ties = ties_of(arch, found)
    assert ties.overlaps
    for picked, other in combinations:
        for cost in ("macs", "params", "deployed_macs"):
            assert cost_of(arch, cost) - cost_of(other, cost) == ties.saved(found, picked, cost)


@pytest.mark.parametrize("cost", COSTS)
def test_the_smallest_is_reached_and_nothing_below_it(
    cost: str, arch: bf.Architecture, found: list[Alternative], combinations: list[Combination]
) -> None:
    ties, least = ties_of(arch, found), min(cost_of(other, cost) for _, other in combinations)
    assert cost_of(least_of(arch, found, cost, ties), cost) == least
    check_reachable(arch, found, [("x", Budget(**{cost: least}))], ties)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match=r"reaches x: the smallest network has .* against"):
        check_reachable(arch, found, [("x", Budget(**{cost: least - 1}))], ties)  # type: ignore[arg-type]


def test_the_choice_is_the_best_of_all_within_its_budget(
    arch: bf.Architecture, found: list[Alternative], combinations: list[Combination]
) -> None:
    """Of all costs together, also where it is memory that decides; or there is none."""
    draw, ties = np.random.default_rng(0), ties_of(arch, found)
    reached = []
    for _ in range(12):
        shares = dict(zip(("macs", "params", "activation_bytes"), draw.uniform(0.2, 1.0, 3), strict=True))
        budget = Budget(**{cost: int(share * getattr(arch, cost)) for cost, share in shares.items()})  # type: ignore[arg-type]
        costs = draw.random(len(found)).tolist()
        able = [
            sum(costs[i] for i in picked)
            for picked, other in combinations
            if all(getattr(other, cost) <= limit for cost, limit in budget.limits.items())
        ]
        reached.append(bool(able))
        if not able:
            with pytest.raises(BudgetError, match="reaches x"):
                check_reachable(arch, found, [("x", budget)], ties)
            continue
        check_reachable(arch, found, [("x", budget)], ties)
        losses = Losses(costs, np.zeros((len(found),) * 2))
        chosen = choose(arch, found, losses, "x", budget, ties)
        assert losses.total(chosen) == pytest.approx(min(able))
    assert {*reached} == {True, False}
