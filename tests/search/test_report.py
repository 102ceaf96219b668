"""What a search leaves behind and prints."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console

import blockforge as bf
from blockforge.console.progress import Bar, Lines
from blockforge.search import SearchResult, search
from blockforge.search.report.plot import _front, plot
from blockforge.search.report.summary import report
from blockforge.search.study.records import TrialRecord
from blockforge.search.workers.trial_progress import TrialProgress
from blockforge.search.workers.trial_progress import reporter as fitting_reporter
from blockforge.spec import Spec, holes


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


@pytest.fixture
def found(tiny: Spec, tmp_path: Path) -> SearchResult:
    return search(tiny, trials=14, budget="600KFLOPs", objective=size, out=tmp_path / "run")


def test_trials_csv_has_every_trial_and_every_hole(found: SearchResult) -> None:
    with open(found.folder / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["number"]) for r in rows] == [t.number for t in found.trials]
    assert set(holes(found.space)) < set(rows[0])
    assert {r["state"] for r in rows} >= {"scored", "refused"}
    for row, trial in zip(rows, found.trials, strict=True):
        assert row["macs"] == str(trial.macs)
        assert row["stages.1.depth"] == str(trial.holes["stages.1.depth"])
        assert (row["stages.1.connect.stride"] == "") == ("stages.1.connect.stride" not in trial.holes)


def test_best_files_build_the_networks_they_are_named_after(found: SearchResult) -> None:
    files = sorted((found.folder / "best").iterdir())
    names = [f.name for f in files]
    assert [n.split("_")[0] for n in names if n.startswith("rank")] == [f"rank{i}" for i in range(1, 6)]
    wanted = {t.hash for t in found.ranked[:5]} | {t.hash for t in found.pareto}
    assert {bf.compile(file).hash for file in files} == wanted
    assert bf.compile(files[-5]).hash == found.best.hash
    assert f"score{found.best.score:.2f}_" in names[-5]


def test_files_of_an_earlier_end_are_replaced_and_others_stay(found: SearchResult) -> None:
    own = found.folder / "best" / "mine.yaml"
    own.write_text("note")
    again = search(trials=24, objective=size, out=found.folder)
    files = {f for f in (found.folder / "best").iterdir() if f != own}
    assert own.exists()
    assert {bf.compile(f).hash for f in files} == {t.hash for t in [*again.ranked[:5], *again.pareto]}
    assert not list(found.folder.rglob("*.tmp"))


def test_plot_is_a_picture_with_something_on_it(found: SearchResult) -> None:
    image = imread(found.folder / "pareto.png")
    assert min(image.shape[:2]) >= 500
    assert len({tuple(p) for p in image[::7, ::7, :3].reshape(-1, 3)}) > 20


@pytest.mark.parametrize("macs", [0, 30, 100])
def test_the_label_of_the_best_lies_within_the_axes(macs: int) -> None:
    figure = Figure(figsize=(8.4, 5.2))
    axes = figure.add_subplot()
    axes.set_xlim(0, 100)
    _front(axes, [TrialRecord(0, "scored", score=0.123456, values=(0.123456,), macs=macs, params=12_345_678)])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    words, inside = axes.texts[0].get_window_extent(), axes.get_window_extent()
    assert inside.x0 <= words.x0
    assert words.x1 <= inside.x1


def test_what_is_scored_is_whole_beside_its_axis(found: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = "micro:steps=120,data=cifar10?val=0.1&train=0.38, macs, latency"
    monkeypatch.setattr(SearchResult, "objective", objective)
    figure = plot(found)
    FigureCanvasAgg(figure).draw()
    words = figure.axes[0].yaxis.label.get_window_extent()
    assert objective in figure.axes[0].get_ylabel().replace("\n", " ")
    assert words.y0 >= 0
    assert words.y1 <= figure.bbox.y1


def _printed(result: SearchResult) -> str:
    text = io.StringIO()
    Console(file=text, width=160, highlight=False).print(report(result))
    return text.getvalue()


def test_report_says_what_was_found_and_how_to_go_on(found: SearchResult) -> None:
    text = _printed(found)
    refused = found.counts["refused"]
    assert f"tiny: 14 of 14 candidates evaluated within 600K MACs, {refused} over budget, not built" in text
    assert found.best.hash in text
    assert "Where the best 5 differ" in text
    assert "params +1.00" in text
    assert "The score orders the candidates much as params" in text
    assert "--trials 28" in text
    for line in text.splitlines():
        if line.startswith("Build the best: blockforge build "):
            assert bf.compile(line.rpartition(" ")[2].strip("'")).hash == found.best.hash


def test_report_of_few_or_no_scores(few: Spec) -> None:
    one = search(few, trials=1, objective=size)
    assert "Too few scores to compare" in _printed(one)

    def broken(arch: bf.Architecture) -> float:
        raise RuntimeError("no memory [left]")

    text = _printed(search(few, trials=2, objective=broken))
    assert "No candidate has a score." in text
    assert "First failure (trial 0): RuntimeError: no memory [left]" in text


def _trials() -> list[TrialRecord]:
    states = ["scored", "refused", "duplicate", "failed", "scored"]
    return [TrialRecord(i, s, score=float(i) if s == "scored" else None) for i, s in enumerate(states)]  # type: ignore[arg-type]


def test_lines_show_counts_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    reporter = fitting_reporter(True, Console(file=text))
    assert isinstance(reporter, TrialProgress)
    assert isinstance(reporter.shown, Lines)
    reporter.shown.seconds = 0
    reporter.start(10, [])
    for trial in _trials():
        reporter.update(trial)
    reporter.stop()
    *_, last = lines = text.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == 5
    assert last.startswith("3/10 evaluated, best 4, 1 over budget, 1 duplicate, 1 failed, ")
    assert last.endswith(" left")


def test_a_terminal_gets_a_bar() -> None:
    text = io.StringIO()
    reporter = fitting_reporter(True, Console(file=text, force_terminal=True, width=120))
    assert isinstance(reporter, TrialProgress)
    assert isinstance(reporter.shown, Bar)
    reporter.start(5, _trials()[:2])
    for trial in _trials()[2:]:
        reporter.update(trial)
    reporter.stop()
    assert "3/5" in text.getvalue()
    assert "best 4" in text.getvalue()
