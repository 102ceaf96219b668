"""Strategies at equal cost: what is charged, what is looked up, that runs go on, and what the curves say."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regret
import strategies
from strategies import Setting, Strategy, Trial, parse_strategies, read_trials, run_all

import blockforge as bf
from blockforge.cli import script
from blockforge.errors import BlockforgeError
from blockforge.search import SearchError
from blockforge.search.equal_cost.kept_rows import TableError
from blockforge.train import DivergedError, TrainResult, open_data

SETTING = Setting("tiny", "2MMACs", 0.95, "digits?val=0.2", "micro", steps=9, trials=4, eta=2)


class Trainings:
    """In place of training: a value that follows from the network, after so many steps."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.patience = 10**6

    def __call__(self, **options: Any) -> Any:
        assert options.pop("seed") == 0
        assert options.pop("data") == SETTING.data

        def measure(arch: bf.Architecture) -> dict[str, float]:
            if len(self.made) == self.patience:
                raise KeyboardInterrupt
            self.made.append((arch.hash, options["steps"]))
            return {"micro": arch.params % 97 - 10 / options["steps"], "loss": 1.0}

        return measure


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(strategies, "Micro", found)
    return found


def test_strategies_by_text() -> None:
    found = parse_strategies("random, evolution/3/6", steps=9)
    assert found == [Strategy("random", "random"), Strategy("evolution/3/6", "evolution", (3, 6))]
    for text, message in (
        ("random/", "'random/' is no strategy"),
        ("randon", "did you mean 'random'"),
        ("random/6/3", "do not rise to 9 steps"),
        ("tpe/9", "do not rise to 9 steps"),
        ("tpe/0", "do not rise to 9 steps"),
        ("tpe,tpe", "names a strategy twice"),
    ):
        with pytest.raises(SearchError, match=message):
            parse_strategies(text, steps=9)


def test_equal_cost_and_nothing_is_trained_twice(trainings: Trainings, tmp_path: Path) -> None:
    strategies = parse_strategies("random,tpe,random/3", SETTING.steps)
    file = tmp_path / "runs.csv"
    assert run_all(SETTING, strategies, 2, file) is None
    trials = read_trials(file, SETTING)
    assert len(set(trainings.made)) == len(trainings.made) == sum(t.trained for t in trials) < len(trials)
    full, low = SETTING.cost(9), SETTING.cost(3)
    images = len(open_data(SETTING.data).val)
    assert (full, low) == (3 * 9 * 64 + images, 3 * 3 * 64 + images)
    for strategy in strategies:
        for seed in range(2):
            run = [t for t in trials if (t.strategy, t.seed) == (strategy.name, seed)]
            assert [t.number for t in run] == list(range(len(run)))
            steps = [t.steps for t in run]
            assert run[-1].cost == steps.count(9) * full + steps.count(3) * low
            assert SETTING.trials * full - low - full / 2 < run[-1].cost <= SETTING.trials * full
    first = {s.name: next(t.hash for t in trials if t.strategy == s.name) for s in strategies}
    assert len(set(first.values())) == 1, "all begin with the same candidate"
    promoted = [t for t in trials if t.strategy == "random/3" and t.steps == 9]
    assert promoted
    assert all((t.hash, 3) in trainings.made for t in promoted)


def test_a_run_that_was_cut_off_goes_on(trainings: Trainings, tmp_path: Path) -> None:
    strategies = parse_strategies("evolution/3,random", SETTING.steps)
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    run_all(SETTING, strategies, 1, whole)
    number = len(trainings.made)
    trainings.made.clear()
    trainings.patience = 3
    with pytest.raises(KeyboardInterrupt):
        run_all(SETTING, strategies, 1, cut)
    with cut.open("a") as file:
        file.write("tiny, half a row")
    trainings.patience = 10**6
    run_all(SETTING, strategies, 1, cut)
    assert len(trainings.made) == number

    def content(file: Path) -> list[tuple[Any, ...]]:
        return [(t.strategy, t.number, t.hash, t.steps, t.cost, t.top1) for t in read_trials(file, SETTING)]

    assert content(cut) == content(whole)
    before = cut.read_text()
    run_all(SETTING, strategies, 1, cut)
    assert cut.read_text() == before


def test_a_table_of_other_proposals_is_refused(trainings: Trainings, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    strategies = parse_strategies("random", SETTING.steps)
    run_all(SETTING, strategies, 1, file)
    first = read_trials(file, SETTING)[0]
    other = file.read_text().replace(first.hash, "0" * 16)
    file.write_text(other)
    run_all(SETTING, strategies, 1, file)
    assert file.read_text() == other, "a whole run stays as it was measured"
    file.write_text("".join(other.splitlines(keepends=True)[:-1]))
    with pytest.raises(TableError, match="holds another run of random with seed 0"):
        run_all(SETTING, strategies, 1, file)


def test_a_training_that_diverges_is_charged(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(**options: Any) -> Any:
        measure = trainings(**options)

        def diverging(arch: bf.Architecture) -> dict[str, float]:
            found = measure(arch)
            if len(trainings.made) == 1:
                raise DivergedError("the loss is nan", TrainResult([], 0.0, model=bf.build(arch)))
            return found

        return diverging

    monkeypatch.setattr(strategies, "Micro", diverge)
    for _ in range(2):
        run_all(SETTING, parse_strategies("random", SETTING.steps), 1, tmp_path / "runs.csv")
        trials = read_trials(tmp_path / "runs.csv", SETTING)
        assert [math.isnan(t.top1) for t in trials] == [True, False, False, False]
        assert trials[0].cost == SETTING.cost(SETTING.steps)


def test_what_is_no_divergence_stops_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arch: bf.Architecture) -> dict[str, float]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(strategies, "Micro", lambda **_: broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run_all(SETTING, parse_strategies("random", SETTING.steps), 1, tmp_path / "runs.csv")


def trial(strategy: str, seed: int, trainings: float, top1: float, steps: int = 9) -> Trial:
    cost = round(trainings * SETTING.cost(SETTING.steps))
    return Trial(SETTING.text, strategy, seed, 0, "a", 1, 1, 1, steps, cost, top1, 0.5, 2.0, 1)


def made_up(lead: list[float]) -> regret.Curves:
    """Runs of random that reach 90, and of another strategy that reach so much more after its first training."""
    strategies = [Strategy("random", "random"), Strategy("tpe", "tpe")]
    trials = [t for s in range(len(lead)) for t in (trial("random", s, 1, 80.0), trial("random", s, 3, 90.0))]
    trials += [trial("tpe", s, 1.4, 99.0, steps=3) for s in range(len(lead))]
    trials += [trial("tpe", s, 1.5, 90.0 + more) for s, more in enumerate(lead)]
    trials += [trial("tpe", s, 4, math.nan) for s in range(len(lead))]
    return regret.curves(trials, SETTING, strategies, len(lead))


def test_curves() -> None:
    found = made_up([1.0, 4.0])
    assert found.best == 94
    assert found.first == 1
    np.testing.assert_array_equal(found.regret["random"], [[14, 14, 4, 4]] * 2)
    np.testing.assert_array_equal(found.regret["tpe"], [[np.nan, 3, 3, 3], [np.nan, 0, 0, 0]])


def test_verdicts() -> None:
    chance, other = regret.verdicts(made_up([1.0, 4.0, 2.0, 2.0]))
    assert (chance.lead, chance.wins, chance.beats) == (None, None, False)
    assert chance.regret == (4, 0)
    assert chance.area == pytest.approx((22 / 3, 0))
    assert other.top1 == pytest.approx((92.25, np.std([1, 4, 2, 2], ddof=1)))
    assert other.lead is not None
    assert 0 < other.lead.low < other.lead.value == 2.25 < other.lead.high
    assert other.area_lead is not None
    assert other.area_lead.value == pytest.approx(22 / 3 - 1.75)
    assert (other.wins, other.beats) == (4, True)
    equal = regret.verdicts(made_up([0.0, 0.0, -1.0, 1.0]))[1]
    assert (equal.wins, equal.beats) == (2, False)
    assert not regret.verdicts(made_up([4.0]))[1].beats
    assert "Nothing beats random" in regret.summary(made_up([0.0, 0.0]), [equal])


def test_the_command(trainings: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png, table = tmp_path / "curves.png", tmp_path / "runs.csv"
    command = [
        "--runs", str(table), "--plot", str(png), "--data", SETTING.data, "--steps", "9",
        "--trials", "3", "--seeds", "2", "--strategies", "random,evolution/3",
    ]  # fmt: skip
    script(regret.compare_strategies, command)
    printed = capsys.readouterr().out
    assert "evolution/3, seed 1: " in printed
    assert "lead over random" in printed
    assert png.read_bytes().startswith(b"\x89PNG")
    script(regret.compare_strategies, [*command, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["strategy"] for row in rows] == ["random", "evolution/3"]


@pytest.mark.slow
def test_several_processes_make_the_same_runs(tmp_path: Path) -> None:
    strategies = parse_strategies("random,random/2", 4)
    setting = Setting("tiny", "1MMACs", 0.95, "digits?val=0.2", "micro", steps=4, trials=2)
    for workers in (1, 2):
        assert run_all(setting, strategies, 2, tmp_path / f"{workers}.csv", workers) is None
    one, two = (
        sorted((t.strategy, t.seed, t.number, t.hash, t.top1) for t in read_trials(tmp_path / f"{n}.csv", setting))
        for n in (1, 2)
    )
    assert one == two


def test_mistakes_are_seen_before_the_first_worker(tmp_path: Path) -> None:
    for changed, message in (({"space": "tyni"}, "no search space named 'tyni'"), ({"data": "mnist5x"}, "mnist5x")):
        setting = dataclasses.replace(SETTING, **changed)
        with pytest.raises(BlockforgeError, match=message):
            run_all(setting, parse_strategies("random", 9), 1, tmp_path / "runs.csv", workers=2)
