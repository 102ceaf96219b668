"""Iso-budget: widths that bring every candidate into the window, in the steps that its blocks accept."""

from __future__ import annotations

import random
import statistics
import time

import pytest

import blockforge as bf
from blockforge.search import load_space
from blockforge.search.space.fit import fit
from blockforge.search.space.load import draw
from blockforge.search.space.widths import Widths
from blockforge.spec import Spec
from blockforge.units import Budget, parse_budget


def candidates(space: Spec, number: int, seed: int = 0) -> list[bf.Architecture]:
    """Random valid networks."""
    rng, found = random.Random(seed), []
    while len(found) < number:
        try:
            found.append(bf.compile(space, ask=lambda hole: draw(hole, rng)))
        except bf.SpecError:
            continue
    return found


def share(arch: bf.Architecture, budget: Budget) -> float:
    """The part of the binding limit that it costs."""
    return max(getattr(arch, name) / limit for name, limit in budget.limits.items())


@pytest.mark.parametrize("text", ["5MFLOPs", "300Kparams", "5MFLOPs,400Kparams,70KB"])
def test_candidates_land_in_the_window(text: str) -> None:
    budget, landed = parse_budget(text), 0
    for arch in candidates(load_space("tiny"), 30):
        try:
            found = fit(arch, budget)
        except bf.BudgetError:
            continue
        landed += 1
        assert 0.97 <= share(found, budget) <= 1
        assert bf.compile(found.spec).hash == found.hash
        assert [len(s.layers) for s in found.plan.stages] == [len(s.layers) for s in arch.plan.stages]
        assert {n["op"] for n in found.graph.nodes.values()} == {n["op"] for n in arch.graph.nodes.values()}
    assert landed >= 27


@pytest.mark.parametrize("name", ["smt_t", "vssd_tiny", "sparx_mamba_t", "mambavision_t", "strip_mlp_t", "swin_tiny"])
def test_proportions_stay(name: str) -> None:
    arch = bf.compile(name)
    found = fit(arch, "1.5GFLOPs")
    assert 0.97 <= found.macs / 1.5e9 <= 1
    before, after = ([s.dim for s in a.plan.stages] for a in (arch, found))
    factors = [b / a for a, b in zip(before, after, strict=True)]
    assert max(factors) / min(factors) < 2
    assert all(dim % 2 == 0 for dim in after)


def test_a_network_in_the_window_stays_as_it_is() -> None:
    arch = bf.compile("smt_t")
    budget = Budget(macs=int(arch.macs / 0.985))
    assert fit(arch, budget) is arch
    assert fit("smt_t", budget).hash == arch.hash


def test_it_grows_as_well_as_shrinks() -> None:
    small, large = fit("smt_t", "0.4GFLOPs"), fit("smt_t", "20GFLOPs")
    assert small.macs < bf.compile("smt_t").macs < large.macs
    assert 0.97 <= large.macs / 20e9 <= 1


def test_blocks_say_which_widths_there_are() -> None:
    widths = Widths(bf.compile("vssd_base"))  # 3, 6, 12 and 24 heads
    assert widths.start == (96, 192, 384, 768)
    assert [widths.nearest(i, 100, 8) for i in range(4)] == [96, 96, 96, 96]
    assert [widths.nearest(i, 150, 1) for i in range(4)] == [150, 150, 150, 144]
    assert widths.ladder(3, 768, 8, 2) == [720, 744, 768, 792, 816]


def test_widths_that_belong_together_change_together() -> None:
    assert Widths(bf.compile("deit_s")).start == (384,)
    spec = bf.load("smt_t", {"stages.3.downsample": "none", "stages.3.dim": 256, "stages.3.let.num_heads": 8})
    found = fit(spec, "1GFLOPs")
    assert found.plan.stages[3].dim == found.plan.stages[2].dim != 256
    stem = fit(bf.load("smt_t", {"stem.dim": 32, "stages.0.downsample": {"op": "conv_downsample"}}), "1GFLOPs")
    assert stem.plan.stem_dim != stem.plan.stages[0].dim
    assert 0.97 <= stem.macs / 1e9 <= 1


def test_relations_on_widths_hold_after_it(tiny: Spec) -> None:
    space = bf.load(tiny, {"require": ["stages.1.dim == 2 * stages.0.dim"]})
    for arch in candidates(space, 5):
        dims = [s.dim for s in fit(arch, "400KFLOPs", 0.85).plan.stages]
        assert dims[1] == 2 * dims[0]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(
        bf.BudgetError, match=r"'deit_b' has no widths that cost 97% to 100% of 2\.00G MACs\n  widths 240"
    ):
        fit("deit_b", "2GFLOPs")
    with pytest.raises(bf.BudgetError, match=r"'smt_b' cannot be made narrow enough for .*\n  widths .* cost"):
        fit("smt_b", "1MFLOPs")
    with pytest.raises(bf.BudgetError, match="there is nothing to fit widths to"):
        fit("smt_b", "20ms@cpu")
    with pytest.raises(bf.BudgetError, match=r"candidates cannot be fitted to 1\.2 of a budget"):
        fit("smt_b", "2GFLOPs", 1.2)


def test_it_is_quick() -> None:
    budget, times = parse_budget("5MFLOPs"), []
    for arch in candidates(load_space("tiny"), 25, seed=1):
        started = time.process_time()
        fit(arch, budget)
        times.append(time.process_time() - started)
    assert statistics.median(times) < 0.1


def test_narrow_widths_keep_their_proportions() -> None:
    """16 x 0.7 is 11 or 12 and not 8: a step is small beside the width that takes it."""
    widths = Widths(bf.compile({
        "blockforge": 1, "name": "narrow", "input": {"size": 32}, "num_classes": 10, "stem": "conv_stem",
        "downsample": "conv_downsample", "head": "classifier",
        "blocks": {"dw": ["dwconv", {"op": "mlp", "mlp_ratio": 2}]},
        "stages": [{"dim": 16, "depth": 2, "layers": "dw"}, {"dim": 40, "depth": 2, "layers": "dw"},
                   {"dim": 96, "depth": 2, "layers": "dw"}],
    }))  # fmt: skip
    assert widths.scaled(0.7, 8) == (11, 28, 64)
    for share_of_it in (0.5, 0.35):
        found = fit(widths.arch, Budget(macs=int(widths.arch.macs * share_of_it)))
        factors = [s.dim / dim for s, dim in zip(found.plan.stages, widths.start, strict=True) if s.dim]
        assert max(factors) / min(factors) < 1.3


def test_steps_follow_heads_rather_than_heads_times_eight() -> None:
    widths = Widths(bf.compile("vssd_base"))  # 3, 6, 12 and 24 heads
    assert [widths.step(i, dim, 8) for i, dim in enumerate(widths.start)] == [12, 24, 24, 24]
    assert [widths.step(i, 60, 8) for i in range(4)] == [6, 6, 6, 24]
    assert [widths.step(0, 200, most) for most in (8, 4, 2, 1)] == [24, 12, 6, 6]
    assert [widths.step(1, near, 8) for near in (48, 47)] == [6, 3]
