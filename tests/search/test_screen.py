"""Screened searches: what a predictor sees and learns, and that every sampler can be screened."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from rich.console import Console

import blockforge as bf
from blockforge.errors import BlockforgeError, SearchError, SpecError
from blockforge.search import search
from blockforge.search.report.html import page
from blockforge.search.report.screened import screened
from blockforge.search.report.summary import report
from blockforge.search.samplers.registry import SAMPLERS
from blockforge.search.screen.features import features
from blockforge.search.screen.predictor import Predictor, likeliest
from blockforge.search.screen.screen import FEWEST
from blockforge.spec import Spec


def worth(arch: bf.Architecture) -> float:
    """What no single size tells: layers of one kind late, a narrow beginning."""
    last = arch.stages[-1]
    sams = sum(node.op == "sam" for node in arch.nodes.values())
    return float(sams * 10 + last.end.last.out_shape.dim - arch.stages[0].end.last.out_shape.dim)


def trials_of(result: Any) -> list[tuple[Any, ...]]:
    return [(t.holes, t.state, t.values, t.guess, t.random) for t in result.trials]


def test_features_tell_networks_apart() -> None:
    one = features(bf.compile("smt_t"))
    other = features(bf.compile("smt_t", {"stages.1.depth": 3}))
    assert (one["depth of stage 1"], other["depth of stage 1"]) == (2, 3)
    assert one["sum log dim"] < other["sum log dim"]
    assert sum(value for name, value in one.items() if name.startswith("macs of stage")) < 1
    assert all(np.isfinite(value) for value in one.values())


def test_a_predictor_learns_places_and_repeats() -> None:
    rng = np.random.default_rng(0)
    rows = [{"a": float(a), "b": float(b)} for a, b in rng.normal(size=(40, 2))]
    values = [[np.exp(5 * row["a"]), -row["b"]] for row in rows]
    new = [{"a": 2.0, "b": -2.0}, {"a": -2.0, "b": 2.0}, {"a": -2.0, "c": 1.0}]
    places = Predictor(rows, values).predict(new)
    assert places.shape == (3, 2)
    assert places[0, 0] > 0.5 > places[1, 0]
    assert places[0, 1] > places[1, 1]
    assert np.array_equal(places, Predictor(rows, values).predict(new))
    assert likeliest(places, seed=0) == 0
    assert likeliest(places[:, :1], seed=0) == 0


def test_networks_that_are_all_alike_are_worth_the_same() -> None:
    places = Predictor([{"a": 1.0}] * 3, [3.0, 1.0, 2.0]).predict([{"a": 1.0}, {"a": 5.0}])
    assert places.ravel().tolist() == pytest.approx([0.5, 0.5])


def test_a_figure_far_beyond_the_known_ones_counts_as_a_far_one() -> None:
    known = Predictor([{"a": float(a)} for a in range(10)], list(range(10)))
    far, farther = known.predict([{"a": 100.0}, {"a": 1e9}])
    assert far == farther > 0.5


def test_of_several_objectives_each_that_is_not_beaten_has_a_chance() -> None:
    places = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.1]])
    assert {likeliest(places, seed) for seed in range(20)} == {0, 1}


@pytest.mark.parametrize("sampler", [*SAMPLERS, "optuna.samplers:TPESampler", "optuna.samplers:NSGAIISampler"])
def test_every_sampler_is_screened_and_goes_on_as_without_a_stop(tiny: Spec, sampler: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"objective": worth, "sampler": sampler, "screen": 3, "budget": "900KFLOPs"}
    whole = search(tiny, trials=16, **settings)
    for trials in (12, 16):
        stopped = search(tiny, trials=trials, out=tmp_path / "s", **settings)
    assert trials_of(stopped) == trials_of(whole)
    screened = [t for t in whole.trials if t.guess is not None]
    assert whole.evaluated == 16
    assert min(t.number for t in screened) >= FEWEST
    assert len(screened) >= 5
    assert not any(t.random for t in screened)
    assert all(t.guess is not None and 0 <= t.guess[0] <= 1 for t in screened)


def test_screening_finds_better_networks_where_there_is_something_to_learn(tiny: Spec) -> None:
    def latest(screen: int | None, seed: int) -> float:
        result = search(tiny, objective=worth, sampler="random", screen=screen, trials=22, seed=seed)
        return float(np.mean([t.score for t in result.trials[12:] if t.score is not None]))

    gains = [latest(8, seed) - latest(None, seed) for seed in range(4)]
    assert min(gains) > 0
    assert np.mean(gains) > 5


def test_the_report_says_whether_the_guesses_held(tiny: Spec) -> None:
    def told(objective: Any, trials: int) -> str:
        return screened(search(tiny, objective=objective, sampler="random", screen=2, trials=trials)) or ""

    assert told(worth, 12) == "Screened: 2 candidates were each the likeliest of 2 proposals, too few to say how far the guesses held."  # fmt: skip  # noqa: E501
    assert told(worth, 40).endswith("; they held.")
    assert told(lambda arch: float(int(arch.hash, 16) % 997), 40).endswith("; among these they said nothing.")
    plain = search(tiny, objective="capacity", trials=2)
    assert screened(plain) is None
    assert "screen" not in page(plain).partition("<h2>")[0]
    result = search(tiny, objective=worth, screen=2, trials=12)
    assert "Screened: 2 candidates" in page(result)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(report(result))
    assert "Screened: 2 candidates" in console.export_text()


def test_what_goes_up_and_what_is_begun_with_is_not_screened(tiny: Spec) -> None:
    result = search(
        tiny, objectives=[worth, "params"], rungs=["capacity"], eta=2, screen=3, trials=14, sampler="random",
    )  # fmt: skip
    screened = [t for t in result.trials if t.guess is not None]
    assert screened
    assert all(t.rung == 0 and len(t.guess or ()) == 2 for t in screened)
    assert any(t.rung == 1 for t in result.trials)


def test_where_no_proposal_may_be_evaluated_the_first_is_kept(few: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a sampler learns of those that are over the budget, and one that goes through all comes to its end."""
    plain = search(few, objective=worth, sampler="random", trials=99)
    monkeypatch.setattr("blockforge.search.screen.screen.FEWEST", 2)
    most = sorted(t.macs or 0 for t in plain.ranked)[3]
    result = search(few, objective=worth, sampler="brute", screen=2, trials=99, budget=f"{most}MACs")
    assert (plain.evaluated, result.evaluated, result.counts["refused"]) == (6, 4, 2)
    screened = search(few, objective=worth, sampler="random", screen=8, trials=99)
    assert screened.evaluated == 6
    assert screened.counts["duplicate"] < plain.counts["duplicate"]


def test_an_object_of_optunas_keeps_what_it_noted_with_the_chosen_proposal(tiny: Spec) -> None:
    grid = {"stages.0.dim": [8, 12, 16], "stages.1.dim": [16, 24, 32], "stages.1.depth": [1, 2, 3, 4]}
    sampler = optuna.samplers.GridSampler(grid, seed=0)
    fixed = {"stages.0.depth": 1, "blocks.dw.0.kernel_size": 3, "blocks.dw.1.mlp_ratio": 1, "let.heads": 1}
    fixed |= {"stages.1.layers": "sam", "stages.1.connect": "none"}
    result = search(tiny, objective=worth, sampler=sampler, overrides=fixed, screen=3, trials=36)
    assert result.evaluated == 36  # each point of the grid once: which it was stands with the trial
    assert any(t.guess is not None for t in result.trials)


@pytest.mark.parametrize(
    ("screen", "told"), [(1, "at least 2, not 1 .proposals.screen"), ("often", "screen"), (2.5, "screen")]
)
def test_a_wrong_number_is_told_with_its_place(tiny: Spec, screen: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        search(tiny, objective=worth, screen=screen)


def test_without_scikit_learn_nothing_begins(tiny: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockforge.extras.find_spec", lambda name: None)
    with pytest.raises(BlockforgeError, match=r"this needs sklearn\n  hint: pip install 'blockforge\[screen\]'"):
        search(tiny, objective=worth, screen=4, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_screen_is_part_of_what_a_study_is(few: Spec, tmp_path: Path) -> None:
    search(few, objective="capacity", trials=2, out=tmp_path / "s")
    with pytest.raises(SearchError, match="screen"):
        search(few, objective="capacity", trials=4, screen=4, out=tmp_path / "s")
