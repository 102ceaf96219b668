"""Which trainings a confirmation makes, and what it may say of them: no network is trained here."""

from __future__ import annotations

import dataclasses
import random

from blockforge.search.confirm.aim import Aim
from blockforge.search.confirm.entrants import Entrant, Entrants, Role
from blockforge.search.confirm.race import FINAL, RACE, Key, Training, next_trainings, run_race
from blockforge.search.confirm.result import Confirmation, confirmed
from blockforge.search.study.records import TrialRecord


def entrant(name: str, role: Role = "finalist") -> Entrant:
    return Entrant(role, f"{role} {name}", TrialRecord(0, "scored", hash=name, macs=1, params=1))


def entered(finalists: str, *baselines: Entrant) -> Entrants:
    return Entrants(tuple(map(entrant, finalists)), baselines)


def train(whole: Entrants, truth: dict[str, float], noise: float, seeds: int, draw: int) -> dict[Key, Training]:
    """All trainings that are asked for, one at a time."""
    rng = random.Random(draw)
    known: dict[Key, Training] = {}
    while (missing := next_trainings(whole, known, seeds)[0]) and (key := missing[0]):
        assert key not in known
        assert len(known) < next_trainings(whole, known, seeds)[1]
        top1 = truth[key[0]] + rng.gauss(0, noise)
        known[key] = Training(*key, top1, top1 - 1 if key[1] >= FINAL else None, images=10_000)
    return known


def confirm(
    whole: Entrants, truth: dict[str, float], noise: float = 0.2, seeds: int = 5, draw: int = 0
) -> Confirmation:
    return confirmed(whole, train(whole, truth, noise, seeds, draw), seeds)


def test_those_that_are_behind_leave_and_the_best_is_measured_anew() -> None:
    whole = entered("abc", entrant("s", "start"))
    truth = {"a": 80.0, "b": 90.0, "c": 89.9, "s": 85.0}
    known = train(whole, truth, 0.1, 6, 0)
    assert {seed for network, seed in known if network == "a"} == {RACE, RACE + 1, RACE + 2}
    result = confirmed(whole, known, 6)
    assert result.winner is not None
    assert result.winner.entrant.hash == "b"
    assert "behind by" in result.race.dropped["a"]
    assert {s for n, s in known if n == "b" and s >= FINAL} == {FINAL + i for i in range(6)}
    assert all(t.test is None for t in known.values() if t.seed < FINAL)
    (start,) = result.baselines
    assert start.lead is not None
    assert abs(start.lead.estimate - 5) < 0.3
    assert start.verdict.startswith("Better than start s by 4.9")
    assert (result.left, result.seeds, result.tested) == (0, 6, True)


def test_baselines_are_measured_while_the_race_waits() -> None:
    whole = entered("ab", entrant("s", "start"))
    known = {("a", RACE): Training("a", RACE, 80.0), ("b", RACE): Training("b", RACE, 81.0)}
    missing, _ = next_trainings(whole, known, 3)
    assert missing[:4] == [("a", RACE + 1), ("b", RACE + 1), ("a", RACE + 2), ("b", RACE + 2)]
    assert missing[4:] == [("s", FINAL), ("s", FINAL + 1), ("s", FINAL + 2)]
    assert confirmed(whole, known, 3).winner is None


def test_of_equals_nothing_is_said_to_be_better() -> None:
    """The winner of ten equals leads in the race by luck; fresh seeds do not know that."""
    whole = entered("abcdefghij", entrant("s", "start"), entrant("r", "random"))
    truth = dict.fromkeys("abcdefghijsr", 90.0)
    results = [confirm(whole, truth, 0.3, 3, draw) for draw in range(100)]
    claims = sum(any(b.lead is not None and b.lead.better for b in r.baselines) for r in results)
    assert claims / 100 <= 0.05
    assert any(b.verdict.startswith("Not better than start s: ") for b in results[0].baselines)


def test_a_network_that_is_its_own_baseline_is_not_compared() -> None:
    whole = entered("ab", entrant("a", "start"))
    result = confirm(whole, {"a": 95.0, "b": 80.0})
    assert result.same == ("start a",)
    assert result.baselines == ()


def test_failures_leave_the_race_and_forbid_claims() -> None:
    whole = entered("ab", entrant("s", "start"))
    known = train(whole, {"a": 80.0, "b": 81.0, "s": 70.0}, 0.1, 3, 0)
    known["b", RACE + 1] = Training("b", RACE + 1, reason="out of memory")
    known["s", FINAL] = Training("s", FINAL, reason="it diverged")
    for i in range(3):
        known["a", FINAL + i] = Training("a", FINAL + i, 80.0, 80.0, 10_000)
    result = confirmed(whole, known, 3)
    assert result.winner is not None
    assert result.winner.entrant.hash == "a"
    assert result.race.dropped == {"b": f"seed {RACE + 1} failed: out of memory"}
    assert "it diverged" in result.baselines[0].verdict
    assert result.baselines[0].lead is None
    assert run_race(["a"], {("a", RACE): Training("a", RACE, reason="no")}, 3).winner is None


def test_one_finalist_does_not_race() -> None:
    whole = entered("a", entrant("s", "start"))
    known = train(whole, {"a": 80.0, "s": 79.0}, 0.1, 4, 0)
    assert {key[1] for key in known} == {FINAL + i for i in range(4)}
    known["a", FINAL + 2] = Training("a", FINAL + 2, reason="it diverged")
    assert (confirmed(whole, known, 4).winner, next_trainings(whole, known, 4)) == (None, ([], len(known)))


def test_worse_is_said_too() -> None:
    result = confirm(entered("a", entrant("s", "start")), {"a": 80.0, "s": 85.0}, noise=0.1)
    assert result.baselines[0].verdict.startswith("Worse than start s by ")


def aimed(finalists: str, costs: dict[str, float]) -> Entrants:
    whole = entered(finalists, entrant("s", "start"))
    return dataclasses.replace(whole, aim=Aim(0.3, "s", "start s", "macs", costs))


def test_the_cheapest_that_is_not_worse_wins() -> None:
    """Not the most accurate one; and what is worse leaves, also where it is cheaper still."""
    whole = aimed("abc", {"a": 70, "b": 60, "c": 30, "s": 100})
    truth = {"a": 90.5, "b": 90.0, "c": 85.0, "s": 90.0}
    result = confirm(whole, truth, noise=0.05, seeds=6)
    assert result.winner is not None
    assert result.winner.entrant.hash == "b"
    assert result.race.dropped["c"].startswith("worse than start s by 4.9")
    assert result.race.dropped["a"].startswith("no cheaper than one that is good enough")
    (start,) = result.baselines
    assert start.lead is not None
    assert start.lead.confidence == 0.95
    assert start.verdict.startswith("Not worse by more than 0.3 points than start s, at 60% of its MACs: ")
    assert (result.left, result.seeds) == (0, 6)


def test_what_is_not_shown_is_not_said() -> None:
    """With noise the interval is wider than the margin, though the networks are equal; worse stays worse."""
    whole = aimed("a", {"a": 70, "s": 100})
    said = confirm(whole, {"a": 90.0, "s": 90.0}, noise=1.0).baselines[0].verdict
    assert said.startswith("Not shown to be within 0.3 points of start s, at 70% of its MACs: ")
    said = confirm(whole, {"a": 88.0, "s": 90.0}, noise=0.1).baselines[0].verdict
    assert said.startswith("Worse than start s, at 70% of its MACs: -2.")


def test_not_worse_is_hardly_ever_said_of_what_is_worse_by_the_margin() -> None:
    whole = aimed("ab", {"a": 70, "b": 60, "s": 100})
    truth = {"a": 89.7, "b": 89.7, "s": 90.0}
    said = [confirm(whole, truth, noise=0.2, draw=draw).baselines[0].verdict for draw in range(80)]
    assert sum(text.startswith(("Not worse", "Better")) for text in said) <= 6  # 2.5% are expected


def test_a_race_whose_start_fails_has_no_winner() -> None:
    whole = aimed("a", {"a": 70, "s": 100})
    known = {("s", RACE): Training("s", RACE, reason="no room")}
    result = confirmed(whole, known, 5)
    assert (result.winner, result.left) == (None, 0)
    assert "no room" in result.race.dropped["s"]
