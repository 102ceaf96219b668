"""Scores as numbers, size baselines, and agreement of rankings."""

from __future__ import annotations

import math

import pytest

from blockforge.errors import ScoreError
from blockforge.search.objectives.correlation import BASELINES, baselines, kendall, rank, size_correlations
from blockforge.search.objectives.costs import COSTS
from blockforge.search.objectives.measure import checked
from blockforge.search.objectives.scores.expressivity import Expressivity
from blockforge.search.registry.describe import describe
from blockforge.search.study.records import TrialRecord, pareto_front, ranked


def test_what_is_not_finite_is_an_error() -> None:
    assert checked(True) == 1.0
    with pytest.raises(ScoreError, match="the score is inf"):
        checked(math.inf)


def test_objectives_are_told_apart() -> None:
    assert describe(Expressivity()) == "Expressivity(size=96, images=16, seed=0, data=None)"
    assert describe(checked) == "blockforge.search.objectives.measure:checked"


def test_kendall_on_known_rankings() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall([1, 1], [1, 2]) is None
    assert kendall([], []) is None


def test_size_baselines() -> None:
    assert rank([30, 10, 20, 10]).tolist() == [3, 0.5, 2, 0.5]
    found = baselines([100, 10, 1000], [5, 5, 7], [3, 1, 2], [9.5, 2.0, 7.5])
    assert tuple(found) == BASELINES
    assert found["log MACs"] == pytest.approx([math.log(100), math.log(10), math.log(1000)])
    assert found["depth"] == [3.0, 1.0, 2.0]
    assert found["rank sum"] == [0.5 + 2, 0.5 + 0, 2 + 1]
    assert found["sum log dim"] == [9.5, 2.0, 7.5]


def test_a_score_that_is_a_rank_sum_is_seen() -> None:
    sizes = [(1, 7, 9, 2), (2, 9, 5, 1), (5, 8, 1, 5), (4, 5, 3, 3)]  # params and depth disagree
    macs, params, depth, scores = map(list, zip(*sizes, strict=True))
    sizes_of = {"macs": macs, "params": params, "activation_bytes": [1] * 4, "depth": depth}
    found = size_correlations(scores, sizes_of, [-score for score in scores])
    assert found["sum log dim"] == -1.0
    assert size_correlations(scores, sizes_of, [1.0, None, 2.0, 3.0])["sum log dim"] is None  # an older study
    assert found["rank sum"] == kendall(scores, [4, 5, 2, 1])
    assert found["macs"] == pytest.approx(4 / 6)
    assert found["activation_bytes"] is None
    assert set(size_correlations([], {cost: [] for cost in COSTS}, []).values()) == {None}


def test_ranking_and_front() -> None:
    figures = [(3.0, 30), (1.0, 10), (2.0, 20), (2.0, 15), (2.5, 40), (3.0, 35)]
    trials = [TrialRecord(i, "scored", score=s, macs=m) for i, (s, m) in enumerate(figures)]
    trials.append(TrialRecord(6, "failed", macs=1))
    assert [t.number for t in ranked(trials)] == [0, 5, 4, 3, 2, 1]
    assert [t.number for t in pareto_front(trials)] == [1, 3, 0]
