"""A limit on training memory: asked last, once a network, and kept by every candidate that is evaluated."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import blockforge as bf
from blockforge.cli import main
from blockforge.compiler.costs import training
from blockforge.kernels.costs import CostError
from blockforge.saving import spec_text
from blockforge.search import SearchError, SearchResult, open_result, search
from blockforge.search.budget import check_budget, excess, over, smallest_candidate
from blockforge.search.equal_cost.compare import fitted
from blockforge.search.report.html import page
from blockforge.search.report.summary import report
from blockforge.search.space.fit import fit
from blockforge.search.space.statistics import draw_specs
from blockforge.spec import Spec
from blockforge.units import Budget, format_bytes, parse_budget

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"
LIMIT, BUDGET = 1_200_000, "1.2MB:train,batch=8,sgd"
"""About half of the networks of `TINY` need more for a step of 8 images."""


def depth(arch: bf.Architecture) -> float:
    return float(arch.depth)


def held(result: SearchResult, trial: object) -> int:
    """What a step of a trial's network holds, found anew."""
    return bf.compile(result.spec(trial)).training_memory(8, "sgd").total  # type: ignore[arg-type]


def check(result: SearchResult, folder: Path) -> None:
    """What every search under `BUDGET` alone shows: refusals that are right, and candidates that hold it."""
    refused = [t for t in result.trials if t.state == "refused"]
    assert refused
    for t in refused:
        assert t.training_bytes == held(result, t) > LIMIT
        assert re.fullmatch(
            r"[\d.]+ MB of training memory against 1.20 MB \(8 images, SGD with momentum\)", t.reason or ""
        )
    scored = [t for t in result.trials if t.state == "scored"]
    for t in scored:
        assert t.training_bytes == held(result, t) <= LIMIT
    table = list(csv.DictReader(io.StringIO((folder / "trials.csv").read_text())))
    assert [r["training_bytes"] for r in table] == [str(t.training_bytes or "") for t in result.trials]


def test_candidates_hold_the_limit_and_the_refused_ones_do_not(tiny: Spec, tmp_path: Path) -> None:
    result = search(tiny, budget=BUDGET, trials=8, objective=depth, out=tmp_path, sampler="random")
    assert result.evaluated == 8
    check(result, tmp_path)
    best = next((tmp_path / "best").glob("rank1_*.yaml"))
    assert bf.load(best).about["search"]["budget"] == "1.20 MB of training memory (8 images, SGD with momentum)"


def test_reports_show_it(tiny: Spec, tmp_path: Path) -> None:
    result = search(tiny, budget=BUDGET, trials=4, objective=depth, out=tmp_path)
    out = io.StringIO()
    Console(file=out, width=160).print(report(result))
    assert "within 1.20 MB of training memory (8 images, SGD with momentum)" in out.getvalue()
    shown = format_bytes(result.best.training_bytes)  # type: ignore[union-attr, arg-type]
    assert re.search(rf"activations\s+training\s+depth[\s\S]*{shown}", out.getvalue())
    assert "<th>training</th>" in page(result)
    assert f"<td>{shown}</td>" in page(result)
    assert open_result(tmp_path).budget == parse_budget(BUDGET)
    plain = search(tiny, budget="1MFLOPs", trials=2, objective=depth, out=tmp_path / "plain")
    assert "<th>training</th>" not in page(plain)
    assert "training" not in (tmp_path / "plain" / "trials.csv").read_text()


def test_only_candidates_within_all_other_limits_are_rehearsed_once_each(
    tiny: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed, rehearse = [], training.rehearse
    monkeypatch.setattr(training, "rehearse", lambda forward: rehearsed.append(1) or rehearse(forward))
    training._rehearsed.cache_clear()
    result = search(tiny, budget=f"450KFLOPs,{BUDGET}", trials=6, objective=depth, sampler="random")
    assert any(t.macs > 450_000 for t in result.trials if t.macs)
    asked = {t.hash for t in result.trials if t.training_bytes is not None}
    assert asked == {t.hash for t in result.trials if t.macs and t.macs <= 450_000}
    assert len(asked) <= len(rehearsed) <= len(asked) + 1  # and the one that the check of the budget found


def test_latency_stands_before_it(tiny: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = smallest_candidate(tiny, Budget()).arch
    monkeypatch.setattr("blockforge.measure.profile.measure", lambda *_: SimpleNamespace(p50_ms=3.0))
    assert list(excess(arch, parse_budget("1GFLOPs,2ms,1GB:train"))) == ["macs", "latency_ms"]
    assert list(excess(arch, parse_budget("1GFLOPs,4ms,1GB:train"))) == ["macs", "latency_ms", "training_bytes"]
    assert over(arch, parse_budget("1KB:train,batch=2")).endswith("against 1.00 KB (2 images, AdamW)")


def test_a_step_is_the_one_that_the_budget_names(few: Spec) -> None:
    arch = smallest_candidate(few, Budget()).arch
    for text, step in (("", (64, "adamw", False)), (",batch=4,plain_sgd,checkpointing", (4, "plain_sgd", True))):
        total = arch.training_memory(*step).total
        assert excess(arch, parse_budget(f"1GB:train{text}"))["training_bytes"] == pytest.approx(total / 1e9 - 1)


def test_a_study_goes_on_with_its_own_step_and_with_no_other(tiny: Spec, tmp_path: Path) -> None:
    search(tiny, budget=BUDGET, trials=3, objective=depth, out=tmp_path)
    with pytest.raises(SearchError, match="budget"):
        search(tiny, budget="1.2MB:train,batch=9,sgd", trials=6, objective=depth, out=tmp_path)
    result = search(tiny, trials=6, objective=depth, out=tmp_path)
    assert result.budget == parse_budget(BUDGET)
    straight = search(tiny, budget=BUDGET, trials=6, objective=depth)
    assert [(t.state, t.hash, t.training_bytes) for t in result.trials] == [
        (t.state, t.hash, t.training_bytes) for t in straight.trials
    ]
    check(result, tmp_path)


def test_workers_and_two_objectives(tmp_path: Path) -> None:
    result = search(
        TINY, budget=BUDGET, trials=8, objectives=["depth", "params"], workers=2, out=tmp_path, sampler="random"
    )
    assert result.evaluated >= 8
    assert result.pareto
    check(result, tmp_path)


def test_where_nothing_fits_the_limit_is_named(tiny: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(bf.BudgetError) as e:
        search(tiny, budget="0.1MB:train,batch=8", trials=2, out=tmp_path / "run")
    first, cost, hint = str(e.value).splitlines()
    assert first == "no candidate of 'tiny' fits in 100 KB of training memory (8 images, AdamW)"
    assert cost.endswith("KB of training memory")
    assert "batch=4" in hint
    assert "with checkpointing" in hint
    assert "--fit" not in hint  # which has no limit to fit to
    assert not (tmp_path / "run").exists()
    assert main(["search", str(TINY), "--budget", "1GFLOPs,10KB:train,batch=1,checkpointing"]) == 1
    told = capsys.readouterr().err
    assert "fits in 1.00G MACs, 10.0 KB of training memory (1 image, AdamW, checkpointing)" in told
    assert "--fit" in told
    assert "batch=" not in told
    assert "with checkpointing" not in told


def test_giving_up_names_the_nearest_and_the_limit(few: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockforge.search.workers.run.check_budget", lambda *_: None)
    with pytest.raises(bf.BudgetError) as e:
        search(few, budget="300KB:train,batch=8", trials=2, objective=depth, max_idle=5, sampler="random")
    _, nearest, hint = str(e.value).splitlines()
    assert re.fullmatch(r"  the nearest one: [\d.]+ KB of training memory against 300 KB \(8 images, AdamW\)", nearest)
    assert "batch=4" in hint


def test_candidates_small_in_another_cost_are_tried_before_a_budget_is_refused(
    few: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    stems = [{"op": "patch_embed", "patch": 8}, {"op": "patch_embed", "patch": 2}]  # fewest MACs, fewest params
    space = bf.load(few, {"stem": {"$choice": stems}})
    fewest = min((smallest_candidate(space, Budget(**{c: 1})).arch for c in ("macs", "params")), key=lambda a: a.params)
    assert fewest.macs > smallest_candidate(space, Budget(macs=1)).arch.macs
    monkeypatch.setattr(
        bf.Architecture, "training_memory", lambda arch, **step: SimpleNamespace(total=16 * arch.params)
    )
    limit = 16 * fewest.params / 1e6
    assert check_budget(space, parse_budget(f"{limit:.6f}MB:train")).hash == fewest.hash
    with pytest.raises(bf.BudgetError, match=r"the smallest one found costs .*training memory"):
        check_budget(space, parse_budget(f"{limit - 0.001:.6f}MB:train"))


def test_widths_are_fitted_without_a_rehearsal(tiny: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, asked = smallest_candidate(tiny, Budget()).arch, []
    ask = bf.Architecture.training_memory

    def asking(own: bf.Architecture, **step: object) -> object:
        asked.append(own.hash)
        return ask(own, **step)  # type: ignore[arg-type]

    monkeypatch.setattr(bf.Architecture, "training_memory", asking)
    assert fit(arch, "600KFLOPs,1KB:train").macs > 0.97 * 600_000
    assert asked == []
    with pytest.raises(bf.BudgetError, match="nothing to fit widths to"):
        fit(arch, "1GB:train")
    result = search(tiny, budget="600KFLOPs,1.6MB:train,batch=8", fit=0.9, trials=3, objective=depth, sampler="random")
    assert set(asked) == {t.hash for t in result.trials if t.state in ("scored", "refused", "duplicate")}
    assert all(t.training_bytes <= 1_600_000 for t in result.trials if t.state == "scored")
    with pytest.raises(SearchError, match="--fit needs a budget to fit to"):
        search(tiny, budget="1GB:train", fit=0.97)


def test_compared_networks_that_need_more_when_fitted_are_refused(tiny: Spec, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(spec_text(smallest_candidate(tiny, Budget()).arch.spec))
    file = str(tmp_path / "a.yaml")
    assert fitted([file], "600KFLOPs,1GB:train", 0.9)["a"].macs > 0.9 * 600_000
    with pytest.raises(bf.BudgetError, match=r"'a', fitted, costs [\d.]+ MB of training memory against 1\.00 KB"):
        fitted([file], "600KFLOPs,1KB:train", 0.9)


def test_a_network_whose_memory_is_not_known_is_told_and_passed_over(
    tiny: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = bf.Architecture.training_memory

    def some(arch: bf.Architecture, **step: object) -> object:
        if arch.depth % 2:
            raise CostError("the training memory of 'x' is not known: no kernel\n  hint: none")
        return ask(arch, **step)  # type: ignore[arg-type]

    monkeypatch.setattr(bf.Architecture, "training_memory", some)
    result = search(tiny, budget="1GB:train,batch=2", trials=4, objective=depth, sampler="random")
    unknown = [t for t in result.trials if t.state == "invalid"]
    assert unknown
    assert {t.reason for t in unknown} == {"the training memory of 'x' is not known: no kernel"}
    assert all(t.depth % 2 == 0 for t in result.ranked)


def test_samples_keep_it_and_a_description_says_that_it_does_not_ask(
    tiny: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = list(draw_specs(tiny, 3, 0, parse_budget(BUDGET)))
    assert all(a.training_memory(8, "sgd").total <= LIMIT for a in drawn)
    assert main(["space", str(TINY), "--draws", "20", "--budget", f"1MFLOPs,{BUDGET}"]) == 0
    told = capsys.readouterr().out
    assert "lie within 1.00M MACs\n" in told
    assert "the training memory is not asked here" in told
