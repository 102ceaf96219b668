"""Several objectives, rungs, starts, fitted widths, the report, and the search as a function of the package."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import ScoreError
from blockforge.search import SearchError, SearchResult, open_result, search
from blockforge.search.objectives.measure import as_measure
from blockforge.search.objectives.registry import make
from blockforge.search.report.html import importances, page
from blockforge.search.report.summary import report
from blockforge.spec import Spec, fill, to_yaml


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


def depth(arch: bf.Architecture) -> dict[str, float]:
    return {"depth_of": float(arch.depth), "width": float(arch.plan.stages[-1].dim)}


depth.name = "depth_of"  # type: ignore[attr-defined]


def rough(arch: bf.Architecture) -> float:
    return float(arch.depth)


@pytest.fixture
def front(tiny: Spec) -> SearchResult:
    return search(tiny, objectives=[depth, "params"], trials=20, budget="1MFLOPs", sampler="nsga2")


def test_a_result_is_shown_in_a_line(tiny: Spec, tmp_path: Path) -> None:
    result = search(tiny, objective="params", trials=2, budget="1MFLOPs", sampler="random", out=tmp_path)
    best = min(t.params or 0 for t in result.trials if t.state == "scored")
    assert repr(result) == (
        f"<SearchResult {tiny.name}: 2 of 2 candidates evaluated within 1.00M MACs; "
        f"the first of them trial {result.ranked[0].number}, score {best:.5g}; in {tmp_path}>"
    )
    assert (
        repr(SearchResult(result.plan)) == f"<SearchResult {tiny.name}: 0 of 2 candidates evaluated within 1.00M MACs>"
    )


def test_several_objectives_give_a_front(front: SearchResult) -> None:
    assert front.plan.directions == ["maximize", "minimize"]
    for trial in front.ranked:
        assert trial.values == (trial.depth, trial.params)
        assert trial.score is None
        assert trial.figures["width"] in (16, 24, 32)
    best = {t.number for t in front.pareto}
    for t in front.ranked:
        beaten = any(
            o.depth >= t.depth and o.params <= t.params and (o.depth, o.params) != (t.depth, t.params)
            for o in front.ranked
        )
        assert beaten != (t.number in best) or any(o.number in best and o.values == t.values for o in front.ranked)
    assert front.ranked[0].number in best


def test_a_weighted_sum_is_one_score(tiny: Spec) -> None:
    found = search(tiny, objectives=[depth, "params"], weights=[1.0, 1e-3], trials=10)
    for trial in found.ranked:
        assert trial.score == pytest.approx(trial.depth - 1e-3 * trial.params)
        assert trial.figures["params"] == trial.params
    scores = [t.score for t in found.ranked]
    assert scores == sorted(scores, reverse=True)
    assert found.objective.startswith("1 * ")


def test_what_is_to_be_small_is_ranked_so(tiny: Spec) -> None:
    found = search(tiny, objective="params", trials=12)
    assert found.best.params == min(t.params for t in found.trials)
    assert found.plan.directions == ["minimize"]


def test_rungs_take_the_best_up_and_go_on_after_a_stop(tiny: Spec, tmp_path: Path) -> None:
    whole = search(tiny, objective=size, rungs=[rough], eta=3, trials=12, out=tmp_path / "whole")
    up = [t for t in whole.trials if t.rung == 1]
    below = {t.number: t for t in whole.trials if t.rung == 0}
    assert whole.evaluated == 12
    assert len(up) == 4
    for trial in up:
        came = below[trial.promoted_from]
        assert (came.hash, came.score, trial.score) == (trial.hash, trial.depth, trial.params)
        ranked = sorted((t.score for n, t in below.items() if n < trial.number and t.score), reverse=True)
        assert came.score >= ranked[len(ranked) // 3 - 1]
    assert whole.best in up
    assert [t.rung for t in whole.ranked[:4]] == [1] * 4
    for trials in (5, 12):
        parts = search(tiny, objective=size, rungs=[rough], eta=3, trials=trials, out=tmp_path / "parts")
    assert {t.hash for t in parts.trials if t.rung == 0} == {t.hash for t in below.values()}
    assert {t.hash for t in up} <= {t.hash for t in parts.trials if t.rung == 1}


def test_rungs_of_several_objectives_go_by_rank(tiny: Spec) -> None:
    found = search(tiny, objectives=[size, "macs"], rungs=[rough], eta=4, trials=16)
    up = [t for t in found.trials if t.rung == 1]
    assert len(up) >= 3
    for trial in up:
        assert trial.values == (trial.params, trial.macs)
        before = [t for t in found.trials if t.rung == 0 and t.number < trial.number and t.values]
        came = next(t for t in before if t.number == trial.promoted_from)
        better = [t for t in before if t.values[0] > came.values[0] and t.values[1] < came.values[1]]
        assert len(better) < len(before) / 4 + 1


def test_starts_come_first_and_are_named(tiny: Spec, tmp_path: Path) -> None:
    answers = {
        "stages.0.dim": 12,
        "stages.0.depth": 2,
        "stages.1.dim": 24,
        "stages.1.depth": 3,
        "stages.1.layers": "dw",
    }
    seed = fill(tiny, answers, "my_seed")
    (tmp_path / "seed.yaml").write_text(to_yaml(seed, header=False))
    found = search(tiny, objective=size, trials=6, start=[tmp_path / "seed.yaml"], out=tmp_path / "run")
    assert found.trials[0].start == "my_seed"
    assert found.trials[0].hash == bf.compile(seed).hash
    assert [t.start for t in found.trials[1:]] == [None] * (len(found.trials) - 1)
    text = (tmp_path / "run" / "report.html").read_text()
    assert "my_seed" in text
    assert re.search(r"rank \d .*(units differ from my_seed|is my_seed)", text)
    again = search(trials=8, objective=size, out=tmp_path / "run")
    assert sum(t.start is not None for t in again.trials) == 1
    with pytest.raises(SearchError, match="'smt_t' is no point of 'tiny'"):
        search(tiny, objective=size, trials=2, start=["smt_t"])


def test_fitted_candidates_cost_what_the_budget_allows(tiny: Spec, tmp_path: Path) -> None:
    found = search(tiny, objective=size, trials=6, budget="1MFLOPs", fit=0.9, sampler="random", out=tmp_path)
    for trial in found.ranked:
        assert 0.9e6 <= trial.macs <= 1e6
        assert bf.compile(found.spec(trial)).hash == trial.hash
    assert any(t.widths for t in found.ranked)
    best = next((tmp_path / "best").glob("rank1_*"))
    assert bf.compile(best).hash == found.best.hash
    with pytest.raises(SearchError, match=r"--fit needs a budget to fit to"):
        search(tiny, objective=size, trials=2, fit=0.9)


def test_relations_of_the_space_refuse_candidates(tiny: Spec) -> None:
    space = bf.load(tiny, {"require": ["stages.0.dim * 2 <= stages.1.dim"]})
    found = search(space, objective=size, trials=12, sampler="random")
    assert all(2 * t.holes["stages.0.dim"] <= t.holes["stages.1.dim"] for t in found.ranked)
    excluded = [t for t in found.trials if t.state == "excluded"]
    assert excluded
    assert not found.counts["refused"]
    assert all("does not hold" in t.reason for t in excluded)
    told = io.StringIO()
    Console(file=told, width=200).print(report(found))
    assert f"{len(excluded)} against require" in told.getvalue()
    assert "over budget" not in told.getvalue()


class _Outside(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [v for k, v in given.items() if k in ("src", "href") and v and "best/" not in v]


def test_the_report_is_one_file_with_everything(front: SearchResult, tmp_path: Path) -> None:
    text = page(front)
    outside = _Outside()
    outside.feed(text)
    assert outside.found == []
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"@[A-Z]+@", text)
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text)[1])
    assert data["names"] == ["depth_of", "params"]
    assert {p["n"] for p in data["points"]} == {t.number for t in front.ranked}
    assert {p["n"] for p in data["points"] if p["f"]} == {t.number for t in front.pareto}
    assert len(data["parallel"]["lines"]) == len(front.ranked)
    front.report(tmp_path / "own.html")
    assert (tmp_path / "own.html").read_text() == text


def test_importances_name_the_hole_that_matters(tiny: Spec) -> None:
    found = search(tiny, objective=rough, trials=40, sampler="random")
    explained = importances(found)
    assert next(iter(explained)) == "stages.1.depth"
    assert explained["stages.1.depth"] > 0.5 > explained["stages.0.dim"]


def test_report_and_resume_by_the_command_line(
    tiny: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(to_yaml(tiny, header=False))
    arguments = ["search", "space.yaml", "--objective", "depth", "--objective", "params", "--sampler", "evolution"]
    assert main([*arguments, "--trials", "5", "--out", "run", "--seed", "3"]) == 0
    assert main(["search", "--resume", "run", "--trials", "9"]) == 0
    found = open_result("run")
    assert (found.evaluated, found.plan.seed, found.plan.sampler) == (9, 3, "evolution")
    (Path("run") / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", "run"]) == 0
    assert "9 of 9 candidates evaluated" in capsys.readouterr().out
    assert (Path("run") / "report.html").exists()
    assert main(["report", "nowhere"]) == 1
    assert main(["search", "--resume", "nowhere"]) == 1
    assert main(["worker", "--storage", "nowhere"]) == 1
    assert capsys.readouterr().err.count("there is no study in nowhere") == 3


def test_the_package_is_its_function(tiny: Spec) -> None:
    found = bf.search(tiny, objectives=[depth, "macs"], trials=6)
    frame = found.dataframe()
    assert len(frame) == len(found.trials)
    assert {"depth_of", "macs", "stages.1.depth", "hash", "width"} <= set(frame.columns)
    assert bf.search.load_space("hybrid").name == "hybrid"
    assert len(found.plot().data) == 3
    assert len(found.plot_history().data) == 2


def test_objectives_from_text() -> None:
    assert make("expressivity:images=4", seed=7).images == 4
    assert make("expressivity", seed=7).seed == 7
    assert as_measure("macs").direction == "minimize"
    for text, message in [
        ("expressivty", "no objective named 'expressivty'\n  hint: did you mean 'expressivity'"),
        ("expressivity:picture=4", "'expressivity' has no option 'picture'"),
        ("expressivity:images", "'images' is no option of 'expressivity'"),
        ("nowhere:score", "the objective nowhere:score cannot be imported"),
        ("math:pi", "math:pi is no function"),
    ]:
        with pytest.raises(SearchError, match=re.escape(message)):
            make(text)


def test_settings_that_do_not_fit_together(tiny: Spec) -> None:
    for settings, message in [
        ({"objectives": [size, "macs"], "weights": [1.0]}, "2 objectives need as many weights, there are 1"),
        ({"objectives": ["macs", "macs"]}, "objectives need names of their own"),
        ({"objective": size, "rungs": ["macs"]}, "the rung macs is to minimize"),
        ({"objective": size, "rungs": [rough], "eta": 1}, "--eta 2 or more"),
        ({"objective": size, "objectives": [size]}, "exclude one another"),
    ]:
        with pytest.raises(SearchError, match=re.escape(message)):
            search(tiny, trials=2, **settings)


def test_a_mapping_without_its_own_value_is_a_failure(tiny: Spec) -> None:
    measure = as_measure(lambda arch: {"other": 1.0})
    with pytest.raises(ScoreError, match="the objective gave other and no '<lambda>'"):
        measure(bf.compile(tiny, ask=lambda hole: hole.labels[0] if hole.kind == "choice" else int(hole.low)))


DOM = """
const text = require("fs").readFileSync(process.argv[1], "utf8"), count = {}, known = {};
const data = text.match(/<script id="data" type="application\\/json">([^]*?)<\\/script>/)[1];
function make(tag) { return {tag, style: {}, value: 0, add() {}, addEventListener() {}, replaceChildren() {},
  setAttribute(k, v) { if (/NaN|undefined|Infinity/.test(v)) throw new Error(`${tag} ${k}=${v}`); },
  appendChild(e) { count[e.tag] = (count[e.tag] || 0) + 1; }}; }
global.document = {createElementNS: (space, tag) => make(tag),
  getElementById: id => known[id] = known[id] || Object.assign(make(id), {textContent: data})};
global.Option = function () {}; global.location = {};
eval(text.match(/<script>\\n([^]*?)<\\/script>/)[1]);
console.log(JSON.stringify(count));
"""


def test_the_reports_script_draws_every_candidate(front: SearchResult, tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("node is not installed")
    front.report(tmp_path / "report.html")
    command = [node, "-e", DOM, str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    drawn = json.loads(done.stdout)
    assert drawn["circle"] == 2 * len(front.ranked)  # in the scatter and in the history
