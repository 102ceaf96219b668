"""What a table of trainings says of ways to search: screens, first rungs, and claims where nothing is better."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest

import blockforge as bf
from blockforge.cli import main
from blockforge.cli._output import console
from blockforge.errors import SearchError
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.fidelity.table import Network, Setting, Table, Training
from blockforge.search.objectives.ranking import resampled
from blockforge.search.replay import claims, command, searches, tail
from blockforge.search.samplers.algorithms.random import Uniform

Replayed = command.Replayed


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "PLAIN", 13)
    monkeypatch.setattr(searches, "SCREENED", 12)
    monkeypatch.setattr(tail, "resampled", functools.partial(resampled, resamples=50))
    monkeypatch.setattr(command, "_MANY", 2)


def table(seen: dict[int, list[float]]) -> Benchmark:
    """Networks with what they reached after each length; 10 of them for each 10 values."""
    setting = Setting(
        space={"blockforge": 1, "name": "s", "stages": [{"dim": {"$int": [1, 400]}, "depth": 1, "layers": "a"}],
               "blocks": {"a": [{"op": "mlp"}]}, "stem": {"op": "patch_embed"}, "head": {"op": "classifier"}},
        budget="1MMACs", fit=0.5, data="d", data_digest="0", recipe="micro",
    )  # fmt: skip
    count = len(next(iter(seen.values())))
    networks = [
        Network(network=n, hash=f"{n}", answers={"stages.0.dim": n + 1}, widths={}, macs=1, params=1, depth=1)
        for n in range(count)
    ]
    rows = [
        Training(network=n, steps=steps, repeat=0, seed=0, session=0, seconds=1.0, top1=value)
        for steps, values in seen.items() for n, value in enumerate(values)
    ]  # fmt: skip
    return Benchmark("made", Table(setting, [*networks, *rows]))


def test_a_rung_that_knows_keeps_the_good_and_one_that_does_not_keeps_anybody() -> None:
    truth = [80 - 0.1 * n for n in range(40)]  # 10 are within a point of the best
    blind = [float((7 * n) % 40) for n in range(40)]
    measured = tail.measure_tail(table({1: blind, 2: truth, 3: truth}))
    nothing, all_known = measured.rungs
    assert (measured.good, measured.networks) == (10, 40)
    assert [all_known.recalls[eta][0] for eta in (2, 3, 4)] == [1, 1, 1]
    assert all_known.dropped == pytest.approx({2: 20 / 30, 3: 27 / 30, 4: 1})
    assert (all_known.needed, all_known.dropped_then) == (9 / 40, 1)
    assert nothing.recalls[4][0] < 0.5
    assert nothing.recalls[4][1] <= nothing.recalls[4][0] <= nothing.recalls[4][2]
    assert nothing.needed > 0.7
    assert next(tail.summary(measured)) == (
        "At least 90% of the good go up: 2 steps, keeping 1/2; 2 steps, keeping 1/3; 2 steps, keeping 1/4."
    )


def test_of_equals_better_is_hardly_ever_said_and_the_winner_looked_better_than_it_is() -> None:
    rng = np.random.default_rng(0)
    equal = table({1: list(80 + rng.normal(0, 0.2, 12)), 2: list(80 + rng.normal(0, 0.2, 12))})
    said = claims.replay_claims(equal, 40)
    assert (said.searches, said.equals, said.values) == (40, 12, 12)
    assert said.better <= 4
    assert said.looked > 0.1
    assert said == claims.replay_claims(equal, 40)
    few = claims.Claims(20, 1, 0.5, 12, 12)
    assert few.share == pytest.approx((0.05, 0.0089, 0.2361), abs=1e-3)
    with pytest.raises(SearchError, match="near-equal"):
        claims.replay_claims(table({1: [1.0, 50.0], 2: [1.0, 50.0]}), 2)


def test_leads_are_of_equal_seeds() -> None:
    plain = np.arange(40.0).reshape(2, 20)
    values = {("tpe", False): plain, ("tpe", True): plain + 0.5}
    means = {("tpe", False): plain - plain**2, ("tpe", True): plain}  # of ours, one training says what they are worth
    found = searches.Searches(table({1: [1.0], 2: [1.0]}), values, means, 45.0, 8)
    assert found.lead("tpe", 10, 10) == (0.5, 0.5, 0.5)
    assert found.picked("tpe", 12) == (0.5, 0.5, 0.5)
    assert found.lead("tpe", 10, 20) == (-9.5, -9.5, -9.5)
    assert found.worth("tpe", 2, 1) == pytest.approx((201, 1, 401))  # 1 - 0 and 21 - (20 - 400)
    assert (found.needed("tpe", 10), found.needed("tpe", 20)) == (11, None)


def test_a_table_of_few_networks_is_too_small() -> None:
    with pytest.raises(SearchError, match="10 networks: nothing is screened before"):
        searches.replay_searches(table({1: [1.0] * 10, 2: [1.0] * 10}), 2, 2)


def test_a_screened_replay_takes_each_network_once_and_repeats() -> None:
    packaged = bf.benchmark("tiny-fashion")
    taken = packaged.replay(Uniform(seed=0), trials=14, seed=0, screen=3)
    assert len(set(taken)) == 14
    assert taken == packaged.replay(Uniform(seed=0), trials=14, seed=0, screen=3)
    assert taken[:10] == packaged.replay(Uniform(seed=0), trials=10, seed=0)


def test_the_command_tells_all_of_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[command.Replayed] = []
    monkeypatch.setattr(command, "Replayed", lambda *parts: kept.append(Replayed(*parts)) or kept[-1])
    assert main(["bench", "replay", "--searches", "2", "--screen", "2", "--json"]) == 0
    told: Any = json.loads(capsys.readouterr().out)
    assert set(told["values"]) == {"random", "random, screened", "tpe", "tpe, screened"}
    assert [len(row) for row in told["values"]["tpe, screened"]] == [12, 12]
    assert {kind: np.shape(rows) for kind, rows in told["means"].items()} == {
        kind: np.shape(rows) for kind, rows in told["values"].items()
    }
    assert [c["searches"] for c in told["claims"]] == [2, 4]
    monkeypatch.setenv("COLUMNS", "120")
    console().print(kept[0].report())
    shown = " ".join(capsys.readouterr().out.split())
    assert "Points below the best of the table, the mean of 2 searches" in shown
    assert "random: what was trained from the 11th to the 12th was better by" in shown
    assert "A rung keeps the best share" in shown
    assert 'searches said "better"' in shown
    assert main(["bench", "replay", "nobody"]) == 1
    assert "no table of trainings is called 'nobody'" in capsys.readouterr().err
