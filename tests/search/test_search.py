"""Whole searches: one seed is one run, nothing is evaluated twice, nothing stops or loses a search."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.search import SearchError, SearchResult, search
from blockforge.search.study.journal import JOURNAL
from blockforge.spec import Spec, fill

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


def outcomes(result: SearchResult) -> list[tuple]:
    """What must repeat: everything but times and numbers, and without what was interrupted."""
    keys = ("state", "holes", "score", "macs", "hash")
    return [tuple(getattr(t, k) for k in keys) for t in result.trials if t.state != "interrupted"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_one_seed_is_one_run(tiny: Spec, sampler: str) -> None:
    first, second = (search(tiny, trials=16, budget="1MFLOPs", seed=5, sampler=sampler) for _ in range(2))
    assert first.trials != []
    assert outcomes(first) == outcomes(second)
    other = search(tiny, trials=16, budget="1MFLOPs", seed=6, sampler=sampler)
    assert [t.hash for t in other.trials] != [t.hash for t in first.trials]


def test_a_study_that_goes_on_is_the_study_without_a_stop(tiny: Spec, tmp_path: Path) -> None:
    for trials in (3, 14, 20):
        stopped = search(tiny, trials=trials, budget="1MFLOPs", objective=size, out=tmp_path)
    assert outcomes(stopped) == outcomes(search(tiny, trials=20, budget="1MFLOPs", objective=size))
    again = search(tiny, trials=20, budget="1MFLOPs", objective=size, out=tmp_path)
    assert outcomes(again) == outcomes(stopped)


def test_equal_networks_are_evaluated_once_and_a_small_space_ends(few: Spec) -> None:
    seen = []

    def objective(arch: bf.Architecture) -> float:
        seen.append(arch.hash)
        return float(arch.params)

    twice = bf.load(few, {"stages.1.layers": {"$choice": ["dw", "(dw)*"]}})
    result = search(twice, trials=50, objective=objective)
    assert len(seen) == len(set(seen)) == result.evaluated == 6
    assert result.stopped == "every candidate of the space was proposed"
    by_number = {t.number: t for t in result.trials}
    duplicates = [t for t in result.trials if t.state == "duplicate"]
    assert len(duplicates) >= 6
    for trial in duplicates:
        first = by_number[trial.duplicate_of]
        assert (first.state, first.hash, first.score) == ("scored", trial.hash, trial.score)


def test_a_candidate_that_fails_is_kept_and_the_search_goes_on(few: Spec) -> None:
    calls = iter(range(100))

    def objective(arch: bf.Architecture) -> float:
        call = next(calls)
        if call == 1:
            raise MemoryError("out of memory")
        return float("nan") if call == 2 else float(arch.params)

    result = search(few, trials=6, objective=objective)
    failed = [t for t in result.trials if t.state == "failed"]
    assert [t.reason for t in failed] == ["MemoryError: out of memory", "ScoreError: the score is nan"]
    assert all(t.score is None and "Traceback" in t.trace for t in failed)
    assert "raise MemoryError" in failed[0].trace
    assert result.counts["scored"] == 4
    assert result.best.params == max(t.params for t in result.trials if t.state == "scored")


def test_tpe_learns_from_refusals_alone(tiny: Spec) -> None:
    def refused(sampler: str) -> int:
        runs = (
            search(tiny, trials=30, budget="330KFLOPs", objective=lambda arch: 0.0, sampler=sampler, seed=seed)
            for seed in (1, 2)
        )
        return sum(run.counts["refused"] for run in runs)

    assert refused("tpe") < 0.7 * refused("random")


def test_a_budget_that_is_almost_impossible_ends_with_a_message(tiny: Spec) -> None:
    text = r"15 proposals in a row brought nothing new .* \(15 over budget\)\n.*nearest one: .* against 240K"
    with pytest.raises(bf.BudgetError, match=text):
        search(tiny, trials=3, budget="240KFLOPs", objective=size, max_idle=15, sampler="random", seed=1)


def test_no_trials_is_an_error(tiny: Spec) -> None:
    with pytest.raises(SearchError, match="0 trials are none"):
        search(tiny, trials=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_next_run_makes_up_for_it(tiny: Spec, tmp_path: Path, number: signal.Signals) -> None:
    calls = iter(range(100))

    def interrupted(arch: bf.Architecture) -> float:
        if next(calls) == 3:
            os.kill(os.getpid(), number)
            time.sleep(30)
        return float(arch.params)

    def again(arch: bf.Architecture) -> float:
        return float(arch.params)

    again.__qualname__ = interrupted.__qualname__
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    result = search(tiny, trials=8, objective=interrupted, out=tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (result.signal, result.stopped, result.evaluated) == (number, "it was interrupted", 3)
    assert result.trials[-1].state == "interrupted"
    assert (tmp_path / "trials.csv").exists()
    resumed = search(tiny, trials=8, objective=again, out=tmp_path)
    assert outcomes(resumed) == outcomes(search(tiny, trials=8, objective=again))


def test_a_journal_that_ends_at_any_line_goes_on_as_if_it_had_not(few: Spec, tmp_path: Path) -> None:
    whole = search(few, trials=4, objective=size, out=tmp_path / "whole")
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) > 14
    for n in range(len(lines)):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(b"".join(lines[:n]))
        resumed = search(few, trials=4, objective=size, out=folder)
        assert outcomes(resumed) == outcomes(whole), f"cut after line {n}"


RUN = """
import sys
from blockforge.search import search
search(sys.argv[1], trials=10**6, seed=1, out=sys.argv[2])
"""


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    rng, journal = random.Random(0), tmp_path / JOURNAL
    finished = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-P", "-c", RUN, str(TINY), str(tmp_path)])
        _wait_until(lambda n=finished: journal.exists() and journal.read_bytes().count(b'"outcome"') >= n + 3)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
        finished = journal.read_bytes().count(b'"outcome"')
    resumed = search(TINY, trials=finished + 2, seed=1, out=tmp_path)
    straight = search(TINY, trials=finished + 2, seed=1)
    assert outcomes(resumed) == outcomes(straight)
    assert resumed.evaluated == finished + 2
    scored = [t.hash for t in resumed.trials if t.state == "scored"]
    assert len(scored) == len(set(scored))


def _wait_until(condition, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_result_gives_ordinary_specs(tiny: Spec) -> None:
    result = search(tiny, trials=8, objective=size)
    for trial in result.ranked:
        spec = result.spec(trial)
        assert bf.compile(spec).hash == trial.hash
        assert spec.about["search"]["trial"] == trial.number
        assert bf.compile(fill(tiny, trial.holes)).hash == trial.hash
    assert result.best is result.ranked[0]
    assert result.pareto[-1].score == result.best.score
