"""Budgets that some combination reaches, and those that none does: all combinations of small networks are compiled."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from small_parent import NET

import blockforge as bf
from blockforge.errors import BudgetError
from blockforge.search.budget import cost_of
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.choosing import check_reachable, choose, least_of
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.pairs import Losses
from blockforge.swapping.slots import Alternative, meet, priced
from blockforge.swapping.sources import fewer_sources
from blockforge.swapping.ties import ties_of
from blockforge.swapping.weights import with_alternatives
from blockforge.swapping.widths import narrower_stages
from blockforge.units import Budget
from blockforge.weights.symmetry import Units

WIDE_DOWN: dict[str, Any] = {
    **NET,
    "downsample": [{"op": "conv", "dim": "$out", "kernel_size": 3, "stride": 2}],
    "stages": [{"dim": 16, "depth": 1, "layers": "conv"}, {"dim": 24, "depth": 1, "layers": "attn"}],
}
"""Most of its multiply-adds lie between its stages: two narrower ones save much less than both."""
CONNECTED: dict[str, Any] = {
    **NET,
    "stages": [
        {"dim": 16, "depth": 1, "layers": "conv"},
        {"dim": 24, "depth": 3, "layers": "attn*", "connect": {"rule": "dense", "aggregate": "concat"}},
    ],
}
"""A branch that goes takes along what an aggregator reads for it, and maps live less long."""
COSTS = ("macs", "params", "activation_bytes", "deployed_macs")
Combination = tuple[list[int], bf.Architecture]


@pytest.fixture(scope="module", params=[WIDE_DOWN, CONNECTED], ids=["wide_down", "connected"])
def arch(request: pytest.FixtureRequest) -> bf.Architecture:
    return bf.compile(written_out(request.param))


@pytest.fixture(scope="module")
def found(arch: bf.Architecture) -> list[Alternative]:
    own = list(alternatives_of(arch, arch.source))
    if any(stage.connect is not None for stage in arch.plan.stages):
        some = [a for a in (*own, *fewer_sources(arch, arch.source)) if a.slot.stage and (a.is_skip or a.is_whole)]
    else:
        thin = [a for a in own if a.is_skip or a.label == "mlp_ratio 1"]
        some = [*thin, *narrower_stages(arch, arch.source)]
    some.sort(key=lambda a: (a.slot.stage, a.slot.layer, a.slot.branch))
    return priced(arch, some, {"deployed_macs"})


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
    costs_of = ("macs", "params", "activation_bytes")
    lowest = {cost: min(getattr(other, cost) for _, other in combinations) for cost in costs_of}
    reached = []
    for _ in range(12):
        limits = {
            cost: int(draw.uniform(0.95 * low, max(1.3 * low, getattr(arch, cost)))) for cost, low in lowest.items()
        }
        budget = Budget(**limits)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("aggregate", ["concat", "gated_sum", {"op": "dmca", "norm": "none"}], ids=str)
def test_an_aggregator_reads_fewer_sources(aggregate: Any) -> None:
    """The network then computes what it did with nothing of the others; and without what they feed, what it does where
    that adds nothing. The spec says it by the rule that there is, or edge by edge."""
    stage = {**CONNECTED["stages"][1], "connect": {"rule": "sparx", "stride": 1, "aggregate": aggregate}}
    arch = bf.compile(written_out({**CONNECTED, "stages": [CONNECTED["stages"][0], stage]}))
    model = bf.build(arch, seed=0).double().eval()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    (fewer,) = (a for a in fewer_sources(arch, arch.source) if a.slot.layer == 2)
    (gone,) = (a for a in alternatives_of(arch, arch.source) if a.slot.is_fed and a.is_skip and a.slot.layer == 1)
    assert isinstance(fewer.cut, Units)
    assert fewer.branch == {"sources": [1], "of": [0, 1]}
    tensors = model.state_dict()
    if isinstance(aggregate, str):  # the other's biases would stay behind dmca's norms
        tensors = fewer.cut.alone(tensors, [1])
    tensors |= {n: torch.zeros_like(t) for n, t in tensors.items() if n.startswith(f"{gone.slot.name}.op.proj")}
    narrow = with_alternatives(model, arch.source, [fewer, gone], {fewer: [1]}).double().eval()
    assert narrow.arch.source.tree["stages"][1]["connect"] == {
        "rule": "edges", "edges": [[-1, 0], [1, 2]], "aggregate": aggregate
    }  # fmt: skip
    alone = edited(arch.source, [fewer]).tree["stages"][1]["connect"]
    assert alone == {"rule": "sparx", "stride": 1, "window": 1, "aggregate": aggregate}
    assert set(narrow.state_dict()) == {
        n for n in tensors if not n.startswith((gone.slot.name, "stages.1.layers.1.agg"))
    }
    if isinstance(aggregate, str):
        model.load_state_dict(tensors)
        torch.testing.assert_close(narrow(x), model(x), rtol=1e-12, atol=1e-12)
