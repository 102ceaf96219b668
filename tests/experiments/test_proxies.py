"""Ranking statistics against brute force, published networks as specs, our own truth, and the verdict."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import proxies
import pytest
import trained_networks
from published import TABLES, read_points, spec_of
from trained_networks import TruthError, read_candidates

import blockforge as bf
from blockforge.cli import script
from blockforge.errors import BlockforgeError
from blockforge.search.equal_cost import trainings
from blockforge.search.equal_cost.kept_rows import TableError
from blockforge.search.equal_cost.trainings import Run, read_runs, train_all
from blockforge.search.objectives.correlation import kendall
from blockforge.search.objectives.measure import as_measure
from blockforge.search.objectives.ranking import Rankings
from blockforge.search.study.config import SearchConfig


def tau_by_pairs(a: list[float], b: list[float]) -> float:
    """Tau-b by its definition."""
    agree = ties_a = ties_b = pairs = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
        agree += int(x * y)
        ties_a, ties_b, pairs = ties_a + (x == 0), ties_b + (y == 0), pairs + 1
    return agree / math.sqrt((pairs - ties_a) * (pairs - ties_b))


# --- ranking


@pytest.mark.parametrize("seed", range(4))
def test_tau_of_the_sample_and_of_every_resample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 6, 9).astype(float).tolist() for _ in range(2))
    rankings = Rankings({"a": a, "b": b}, resamples=20, seed=seed)
    found = rankings.taus("a", "b")
    assert found[0] == pytest.approx(tau_by_pairs(a, b)) == pytest.approx(kendall(a, b))
    for counts, tau in zip(rankings.counts_Rn[1:].astype(int), found[1:], strict=True):
        drawn = np.repeat(np.arange(9), counts)
        assert tau == pytest.approx(tau_by_pairs([a[i] for i in drawn], [b[i] for i in drawn]))


def test_intervals_hold_the_value_and_shrink_with_more_things() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (20, 200):
        x = rng.normal(size=n)
        rankings = Rankings({"x": x.tolist(), "y": (x + rng.normal(size=n)).tolist()})
        value, low, high = rankings.tau("x", "y")
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert Rankings({"x": [1, 2, 3], "y": [4, 5, 6]}).tau("x", "y") == (1, 1, 1)
    assert all(math.isnan(v) for v in Rankings({"x": [1, 1], "y": [4, 5]}).tau("x", "y"))


def test_partial_tau_takes_size_out() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=150)
    columns = {"size": size, "truth": size + rng.normal(size=150) / 2, "score": size + rng.normal(size=150) / 2}
    rankings = Rankings({name: values.tolist() for name, values in columns.items()})
    ab, ag, bg = (rankings.tau(*pair).value for pair in (("score", "truth"), ("score", "size"), ("truth", "size")))
    partial = rankings.partial("score", "truth", "size")
    assert partial.value == pytest.approx((ab - ag * bg) / math.sqrt((1 - ag**2) * (1 - bg**2)))
    assert ab > 0.4 > 0.2 > abs(partial.value)


# --- published truth


def test_autoformer_by_its_formula() -> None:
    arch = {"hidden_dim": 216, "mlp_ratio": [3.5, 4.0, 3.5], "depth": 3, "num_heads": [3, 4, 4]}
    found = bf.compile(spec_of("autoformer_ti", arch, "net"))
    dim, norm = 216, 2 * 216
    layers = 0
    for heads, ratio in zip(arch["num_heads"], arch["mlp_ratio"], strict=True):  # type: ignore[call-overload]
        inner, hidden = 64 * heads, int(dim * ratio)
        layers += 2 * norm + dim * 3 * inner + 3 * inner + inner * dim + dim + 2 * dim * hidden + hidden + dim
    stem = (16 * 16 * 3 + 1) * dim + dim + 197 * dim
    assert found.params == stem + layers + norm + (dim + 1) * 100
    assert found.depth == 3


def test_pit_by_its_shapes() -> None:
    arch = {"base_dim": 16, "mlp_ratio": 6, "depth": [2, 1, 1], "num_heads": [2, 4, 8]}
    found = bf.compile(spec_of("pit", arch, "net"))
    assert [tuple(shape) for shape in found.stage_shapes()] == [(27, 27, 32, 1), (14, 14, 64, 1), (7, 7, 128, 1)]
    attentions = [d["impl"] for d in found.graph.nodes.values() if d["op"] == "attention"]
    assert [a.num_heads for a in attentions] == [2, 2, 4, 8]


def test_published_points_compile_and_order_by_size_as_published() -> None:
    """Tau of parameters and depth with the accuracies, as it was found with another implementation of the networks."""
    points = [p for p in read_points() if p.space == "autoformer_ti"]
    archs = [bf.compile(p.spec) for p in points]
    expected = {"c100_base": (-0.32, -0.11), "c100_kd": (0.55, 0.67), "flowers_kd": (0.70, 0.37)}
    for task, (params, depth) in expected.items():
        reached = [p.accuracies[task] for p in points]
        assert kendall([a.params for a in archs], reached) == pytest.approx(params, abs=0.015)
        assert kendall([a.depth for a in archs], reached) == pytest.approx(depth, abs=0.015)


def test_unknown_published_space() -> None:
    with pytest.raises(BlockforgeError, match="did you mean 'pit'"):
        spec_of("pits", {}, "net")


def test_points_of_another_table(tmp_path: Path) -> None:
    arch = {"base_dim": 16, "mlp_ratio": 2, "depth": [1, 1, 1], "num_heads": [2, 2, 2]}
    rows = [
        {"space": "pit", "arch": {**arch, "mlp_ratio": ratio}, "cars": 50.0 + ratio, "dogs": dogs}
        for ratio, dogs in ((2, 60.0), (4, None), (6, 70.0))
    ]
    (tmp_path / "points.json").write_text(json.dumps({"rows": rows}))
    (found,) = proxies.published_truths(tmp_path / "points.json")
    assert found.tasks == {"cars": [52.0, 54.0, 56.0]}
    rows_of = {row.score: row for row in proxies.compare(found, {})}
    assert rows_of["log params"].tau == 1.0
    (tmp_path / "points.json").write_text('{"rows": [{"space": "pit"}]}')
    with pytest.raises(BlockforgeError, match="is not a table of points: 'arch'"):
        proxies.published_truths(tmp_path / "points.json")


# --- our own truth


def fake_run(arch: bf.Architecture, data: Any, recipe: str, epochs: int, seed: int, test: bool) -> Run:
    top1 = 50 + arch.params / 1e5 + seed
    return Run(
        arch.name, arch.hash, seed, data.name, recipe, epochs, arch.macs, arch.params, arch.depth, top1, 1.0, 0.0
    )


@pytest.fixture
def networks() -> list[bf.Architecture]:
    return [bf.compile("deit_s", {"stages.0.depth": d, "stages.0.dim": 192, "name": f"net{d}"}) for d in (1, 2, 3)]


def test_training_goes_on_where_it_was_stopped(
    networks: list[bf.Architecture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "train_one", fake_run)
    file = tmp_path / "runs.csv"
    goes_on = train_all(networks, file, "digits", "micro", 1, seeds=2)
    first = [next(goes_on) for _ in range(4)]
    assert [(run.name, run.seed) for run, *_ in first] == [("net1", 0), ("net2", 0), ("net3", 0), ("net1", 1)]
    assert read_runs(file) == [run for run, *_ in first]
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])  # the power went
    rest = list(train_all(networks, file, "digits", "micro", 1, seeds=2))
    assert [(run.name, run.seed, number, total) for run, number, total in rest] == [
        ("net1", 1, 4, 6), ("net2", 1, 5, 6), ("net3", 1, 6, 6),
    ]  # fmt: skip
    assert file.read_bytes().startswith(whole)
    assert not list(train_all(networks, file, "digits", "micro", 1, seeds=2))
    assert len(list(train_all(networks, file, "digits", "micro", 2, seeds=1))) == 3  # other settings, other runs


def test_candidates_cost_the_same_and_differ(tmp_path: Path) -> None:
    file = tmp_path / "nets.json"
    trained_networks.draw_candidates("tiny", 4, "1MMACs", trained_networks.SHARE, 0, file)
    found = read_candidates(file)
    assert len({a.hash for a in found}) == 4
    assert all(0.95e6 <= a.macs <= 1e6 for a in found)


@pytest.mark.parametrize("content", ["[", None])
def test_candidates_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "nets.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TruthError, match="cannot be read"):
        read_candidates(file)


def test_a_table_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="is not a table of runs"):
        read_runs(tmp_path / "runs.csv")


# --- the verdict


def made_truth(networks: list[bf.Architecture], seed: int = 0) -> proxies.Truth:
    """Sizes and what is reached have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return proxies.Truth("made", networks, {"task": rng.permutation(len(networks)).astype(float).tolist()}, ())


def test_only_what_leads_the_size_predicts() -> None:
    networks = read_candidates(TABLES / "own_candidates.json")
    made = made_truth(networks)
    rng = np.random.default_rng(1)
    oracle = (np.array(made.tasks["task"]) + rng.normal(size=len(networks))).tolist()
    noise = rng.normal(size=len(networks)).tolist()
    size = [float(a.params) for a in networks]
    rows = {r.score: r for r in proxies.compare(made, {"oracle": oracle, "noise": noise, "size": size})}
    assert [name for name, row in rows.items() if row.predicts] == ["oracle"]
    assert rows["size"].tau == rows["log params"].tau
    assert rows["size"].gain_low <= 0
    assert rows["oracle"].tau > 0.8
    assert math.isnan(rows["log params"].partial)
    told = "oracle loses on 0 and leads on 1; noise loses on 0 and leads on 0; size loses on 0 and leads on 0"
    assert list(proxies.behind(list(rows.values()))) == [
        f"Beside sum log dim, of 1 tasks, with the whole interval: {told}."
    ]


def test_a_copy_of_a_size_that_tells_the_truth_does_not_predict() -> None:
    networks = read_candidates(TABLES / "own_candidates.json")
    sizes = [float(a.params) for a in networks]
    by_size = proxies.Truth("made", networks, {"task": sizes}, ())
    rows = {r.score: r for r in proxies.compare(by_size, {"copy": sizes})}
    assert rows["copy"].tau == 1.0
    assert not rows["copy"].predicts


def test_what_has_no_score_ranks_last_and_is_not_asked_again(networks: list[bf.Architecture]) -> None:
    asked: list[tuple[str, float]] = []
    made, known = made_truth(networks), {(networks[0].hash, "depth"): -7.0}
    values = proxies.score(made, "depth", known, lambda h, o, v: asked.append((h, v)))
    assert values == [-7.0, -2.0, -3.0]  # to be kept small
    assert asked == [(networks[1].hash, -2.0), (networks[2].hash, -3.0)]
    known[networks[1].hash, "depth"] = math.nan
    assert proxies.score(made, "depth", known, lambda *_: None) == [-7.0, -8.0, -3.0]


def test_packaged_scores_are_complete_and_are_kept(tmp_path: Path) -> None:
    known = proxies.read_scores(None)
    own = proxies.Truth("own", read_candidates(TABLES / "own_candidates.json"), {}, proxies.OWN)
    for each in (*proxies.published_truths(), own):
        for objective in each.objectives:
            assert {(a.hash, objective) for a in each.networks} <= known.keys(), (each.name, objective)
    file = tmp_path / "scores.csv"
    proxies.append_score(file, "abc", "naswot:images=8,size=112", 1 / 3)
    proxies.append_score(file, "abc", "zico", math.nan)
    assert proxies.read_scores(file)["abc", "naswot:images=8,size=112"] == 1 / 3
    assert math.isnan(proxies.read_scores(file)["abc", "zico"])
    file.write_text("something,else\n1,2\n")
    with pytest.raises(BlockforgeError, match="is not a table of scores"):
        proxies.read_scores(file)


def test_truths_are_named() -> None:
    with pytest.raises(TruthError, match="did you mean 'published'"):
        proxies.truths("publish")
    with pytest.raises(TruthError, match="belong together"):
        proxies.truths("own", candidates=Path("a.json"))


# --- the command line


def test_from_training_to_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trained_networks.py` draws and trains, `proxies.py` compares; both go on with what there is."""
    monkeypatch.setattr(trainings, "train_one", fake_run)
    nets, runs, scores, out = (str(tmp_path / name) for name in ("n.json", "r.csv", "s.csv", "o.csv"))
    files = ["--candidates", nets, "--runs", runs]
    draw = ["--number", "4", "--budget", "1MMACs", "--data", "digits", "--seeds", "2"]
    assert script(trained_networks.truth, [*files, *draw]) == 0
    assert "8/8: tiny_0003, seed 1: " in capsys.readouterr().out
    compare = ["--truth", "own", *files, "--objective", "depth", "--scores", scores, "--out", out]
    assert script(proxies.compare_proxies, compare) == 0
    printed = capsys.readouterr().out
    assert "No score predicts anything on own that size does not." in printed
    assert "Truth is the mean of 2 training seeds." in printed
    assert "Ceiling: tau of the top-1 of two training seeds is +1.00 (+1.00 +1.00), 2 seeds, 4 networks." in printed
    assert len(Path(scores).read_text().splitlines()) == 1 + 4
    rows = Path(out).read_text().splitlines()
    assert len(rows) == 1 + 2 * 6  # two tasks; five baselines and a score
    assert script(proxies.compare_proxies, [*compare, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["truth"] == "own"
    assert len(Path(scores).read_text().splitlines()) == 1 + 4


def test_a_table_without_a_whole_seed(tmp_path: Path, networks: list[bf.Architecture]) -> None:
    nets, runs = tmp_path / "n.json", tmp_path / "r.csv"
    nets.write_text(json.dumps([a.spec.tree for a in networks]))
    with pytest.raises(TruthError, match="holds no seed that all 3 candidates were trained with"):
        proxies.own_truth(nets, runs)


@pytest.mark.parametrize("name", ["autoformer_ti", "pit", "own"])
def test_no_default_score_loses_to_widths_alone(name: str) -> None:
    """By the scores that are kept with the experiment; what costs nothing is computed."""
    truth = next(truth for truth in proxies.truths("own" if name == "own" else "published") if truth.name == name)
    texts = {text.partition(":")[0]: text for text in truth.objectives}
    defaults = [texts.get(name, name) for name in SearchConfig().goal.objectives]
    known = proxies.read_scores(None)
    assert all(as_measure(text).cost == 0 or (truth.networks[0].hash, text) in known for text in defaults)
    scores = {text: proxies.score(truth, text, known, lambda *new: None) for text in defaults}
    losing = [row.task for row in proxies.compare(truth, scores) if row.score in scores and row.lead_high < 0]
    assert not losing
