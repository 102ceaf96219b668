"""Intervals of means and differences: against tables, and against what they are to hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blockforge.search.confirm.statistics import (
    Interval,
    difference,
    mean_interval,
    rounding,
    simultaneous,
    t_quantile,
)


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 3, 3.1824), (0.975, 4, 2.7764), (0.9875, 4, 3.4954),
     (0.995, 9, 3.2498), (0.95, 30, 1.6973), (0.5, 5, 0.0)],
)  # fmt: skip
def test_quantiles_are_those_of_tables(share: float, freedom: int, value: float) -> None:
    assert t_quantile(share, freedom) == pytest.approx(value, abs=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        (found := mean_interval(rng.normal(3, 2, 4).tolist())).low < 3 < found.high for _ in range(2000)
    )  # fmt: skip
    assert 0.935 < hits / 2000 < 0.965


def test_pairs_take_out_what_seeds_share() -> None:
    shared = {0: 5.0, 1: -4.0, 2: 1.0, 3: 9.0}
    a, b = ({seed: more + value for seed, value in shared.items()} for more in (70.5, 70.0))
    b[0] += 0.1
    assert difference(a, b).better
    alone = difference(a, {seed + 10: value for seed, value in b.items()})
    assert alone.estimate == pytest.approx(difference(a, b).estimate)
    assert not alone.better


def test_of_equal_networks_the_better_one_is_rare_and_the_margin_decides() -> None:
    rng = np.random.default_rng(1)
    draws = [[dict(enumerate(rng.normal(90, 0.3, 5))) for _ in range(2)] for _ in range(1000)]
    found = [difference(a, b) for a, b in draws]
    assert sum(d.better for d in found) / 1000 < 0.04
    assert sum(d.not_inferior(1.5) for d in found) / 1000 > 0.95
    assert not any(d.not_inferior(0.0) and not d.better for d in found)


def test_too_few_values_say_nothing() -> None:
    lone = difference({0: 90.0}, {0: 10.0})
    assert lone.estimate == 80
    assert (lone.low, lone.high) == (-math.inf, math.inf)
    assert not lone.better
    assert not lone.not_inferior(99)


def test_whole_images_are_a_spread_of_their_own() -> None:
    equal = difference({0: 91.0, 1: 91.0, 2: 91.0}, {0: 90.5, 1: 90.5, 2: 90.5}, least_sd=rounding(200))
    assert not equal.better
    assert difference({0: 91.0, 1: 91.0, 2: 91.0}, {0: 90.5, 1: 90.5, 2: 90.5}, least_sd=rounding(10_000)).better


def test_several_comparisons_share_the_error() -> None:
    assert simultaneous(1) == 0.95
    assert simultaneous(5) == pytest.approx(0.99)
    assert str(Interval(0.5, -0.25, 1.25)) == "+0.50 (-0.25 to +1.25)"
