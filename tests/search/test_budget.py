"""Budgets: the smallest candidate, what is refused, and that nothing is built for a refusal."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

import blockforge as bf
from blockforge.search import search
from blockforge.search.budget import as_budget, check_budget, excess, over, smallest_candidate
from blockforge.search.space.fit import fit
from blockforge.search.space.load import values
from blockforge.spec import Spec, holes
from blockforge.units import Budget


@pytest.mark.parametrize("limit", ["macs", "params", "activation_bytes"])
def test_smallest_candidate_is_the_smallest_of_all(few: Spec, limit: str) -> None:
    names = holes(few)
    everything = [
        bf.compile(few, ask=lambda hole, point=point: dict(zip(names, point, strict=True))[hole.name])
        for point in itertools.product(*(values(hole) for hole in names.values()))
    ]
    found = smallest_candidate(few, Budget(**{limit: 1})).arch
    assert getattr(found, limit) == min(getattr(arch, limit) for arch in everything)


def test_excess_is_relative_to_each_limit(tiny: Spec) -> None:
    arch = smallest_candidate(tiny, Budget()).arch
    budget = Budget(macs=arch.macs * 2, params=arch.params // 2)
    assert excess(arch, budget)["macs"] == pytest.approx(-0.5)
    assert excess(arch, budget)["params"] == pytest.approx(1.0, rel=1e-3)
    assert "params against" in over(arch, budget)
    assert "MACs" not in over(arch, budget)


def test_impossible_budget_names_the_smallest_candidate(tiny: Spec, tmp_path) -> None:
    smallest = smallest_candidate(tiny, Budget(macs=1000)).arch
    shown = f"{smallest.macs / 1000:.0f}K MACs"
    with pytest.raises(bf.BudgetError, match=f"no candidate of 'tiny' fits in 1.00K MACs\n.* costs {shown}, "):
        search(tiny, budget="1KFLOPs", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_refused_candidates_are_never_evaluated(tiny: Spec) -> None:
    seen = []

    def objective(arch: bf.Architecture) -> float:
        seen.append(arch.macs)
        return float(arch.depth)

    result = search(tiny, budget="400KFLOPs,20Kparams", trials=12, objective=objective)
    assert result.evaluated == len(seen) == 12
    assert max(seen) <= 400_000
    refused = [t for t in result.trials if t.state == "refused"]
    assert refused
    assert all(t.score is None and "against" in t.reason for t in refused)
    assert all(t.macs > 400_000 or t.params > 20_000 for t in refused)


def test_a_space_that_never_compiles_shows_its_error(tiny: Spec) -> None:
    with pytest.raises(bf.SpecError, match="dim 7 is not divisible by num_heads 2"):
        search(bf.load(tiny, {"let.heads": 2, "stages.1.dim": 7, "stages.1.layers": "sam"}), trials=2)


def test_invalid_candidates_are_told_and_passed_over(tiny: Spec) -> None:
    space = bf.load(tiny, {"stages.1.dim": {"$choice": [16, 17]}, "stages.1.layers": "sam", "let.heads": 2})
    result = search(space, trials=6, objective=lambda arch: float(arch.depth), sampler="random")
    invalid = [t for t in result.trials if t.state == "invalid"]
    assert invalid
    assert all(t.reason.startswith("dim 17 is not divisible by num_heads 2") for t in invalid)
    assert all(t.holes["stages.1.dim"] == 16 for t in result.ranked)


def test_latency_is_measured_last_and_once(tiny: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, measured = smallest_candidate(tiny, Budget()).arch, []

    def measure(model: object, setting: object, device: str, seconds: float) -> object:
        measured.append(device)
        return SimpleNamespace(p50_ms=3.0)

    monkeypatch.setattr("blockforge.measure.profile.measure", measure)
    too_many = Budget(macs=arch.macs - 1, latency_ms=2.0, device="cpu")
    assert list(excess(arch, too_many)) == ["macs"]
    assert measured == []
    budget = Budget(macs=arch.macs, latency_ms=2.0, device="cpu")
    assert excess(arch, budget) == {"macs": 0.0, "latency_ms": 0.5}
    assert over(arch, budget) == "3 ms against 2 ms on cpu"
    assert measured == ["cpu"]


def test_a_latency_is_a_real_one(few: Spec) -> None:
    arch = smallest_candidate(few, Budget()).arch
    assert excess(arch, Budget(latency_ms=60_000.0, device="cpu"))["latency_ms"] < -0.9
    with pytest.raises(bf.BudgetError, match=r"no candidate of 'tiny' fits in 0\.0001 ms on cpu\n.* ms\n"):
        check_budget(few, as_budget("0.1us@cpu"))


def test_the_check_ends_with_the_first_that_fits(tiny: Spec) -> None:
    found = check_budget(tiny, as_budget(["1GFLOPs", "1Gparams"]))
    assert found.macs > smallest_candidate(tiny, Budget(macs=1)).arch.macs or found.depth == 2
    assert as_budget(None) == as_budget("") == Budget()


BRANCHES = """
blockforge: 1
name: branches
input: {size: 32}
num_classes: 10
let: {w: {$int: [8, 24, 8]}}
define:
  rep:
    - op: parallel
      join: sum
      of: [[{op: conv, dim: $out, kernel_size: 3}, batch_norm], [{op: conv, dim: $out}, batch_norm]]
    - relu
stem: {op: conv, kernel_size: 3, stride: 4}
stages: [{dim: $w, depth: {$int: [1, 3]}, layers: rep}]
head: [global_pool, logits]
"""


def test_limits_on_the_deployed_form_are_on_that(tmp_path) -> None:
    (tmp_path / "branches.yaml").write_text(BRANCHES)
    space = bf.load(tmp_path / "branches.yaml")
    small = smallest_candidate(space, Budget(deployed_macs=1)).arch
    assert small.deployed.macs < small.macs
    limit = small.deployed.macs + 1
    budget = as_budget(f"{limit}FLOPs@deploy")
    assert excess(small, budget) == {"deployed_macs": small.deployed.macs / limit - 1}
    assert not over(small, budget)
    assert over(small, Budget(macs=limit))
    with pytest.raises(bf.BudgetError, match=r"fits in 100 MACs deployed\n.* of activations, .* MACs deployed"):
        check_budget(space, as_budget("100FLOPs@deploy"))
    with pytest.raises(bf.BudgetError, match="ms deployed"):
        check_budget(space, as_budget("1Mparams@deploy,0.001us@deploy"))
    found = search(space, budget="300KFLOPs@deploy", trials=3, objectives=["params"], seed=0)
    assert found.evaluated == 3
    assert all(bf.compile(found.spec(trial)).deployed.macs <= 300_000 for trial in found.ranked)
    assert 0.8 <= fit(small, f"{2 * limit}FLOPs@deploy", 0.8).deployed.macs / (2 * limit) <= 1
