"""The training-free score: its formula on maps with known spectra, its edges, and that it repeats."""

from __future__ import annotations

import math
import random

import pytest
import torch

import blockforge as bf
from blockforge.search.records import TrialRecord, pareto_front, ranked
from blockforge.search.score import Expressivity, ScoreError, checked, describe, feature_entropy, kendall
from blockforge.spec import Spec


@pytest.mark.parametrize("shape", [(2, 4, 4, 8), (1, 2, 3, 16)])
def test_entropy_of_equal_directions_is_the_log_of_their_number(shape: tuple[int, ...]) -> None:
    rows, dim = math.prod(shape[:-1]), shape[-1]
    basis = torch.linalg.qr(torch.randn(rows, rows) - 0.5)[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0][:, : min(rows - 2, dim)]
    centred = basis - basis.mean(0)
    centred = torch.linalg.svd(centred, full_matrices=False)
    flat = centred.U @ centred.Vh  # equal singular values
    flat = torch.nn.functional.pad(flat, (0, dim - flat.shape[1]))
    assert feature_entropy(flat.view(shape)) == pytest.approx(math.log(min(rows - 2, dim)), abs=0.05)


def test_entropy_of_one_direction_and_of_nothing_is_zero() -> None:
    line = torch.randn(2, 3, 3, 1) * torch.randn(8)
    assert feature_entropy(line) == pytest.approx(0.0, abs=1e-3)
    assert feature_entropy(torch.full((2, 3, 3, 8), 7.0)) == 0.0


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_entropy_does_not_depend_on_scale(scale: float) -> None:
    x = torch.randn(2, 4, 4, 8)
    assert feature_entropy(x * scale) == pytest.approx(feature_entropy(x), rel=1e-4)


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(ScoreError, match="a layer's output is not finite"):
        feature_entropy(torch.full((1, 2, 2, 4), math.nan))
    with pytest.raises(ScoreError, match="the score is inf"):
        checked(math.inf)


def test_score_repeats_and_follows_its_seed(tiny: Spec) -> None:
    rng = random.Random(0)
    arch = bf.compile(tiny, ask=lambda h: rng.choice(h.labels) if h.kind == "choice" else h.high)
    before = torch.random.get_rng_state()
    first = Expressivity()(arch)
    assert Expressivity()(arch) == first
    assert Expressivity(seed=1)(arch) != first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert 0 < first < arch.depth * math.log(48)


@pytest.mark.parametrize("size", [224, [65, 130]])
def test_images_keep_their_shape_and_stay_large_enough(size: int | list[int]) -> None:
    arch = bf.compile("smt_t", {"input.size": size})
    batch = Expressivity(size=40, images=2).batch(arch)
    assert batch.shape == ((2, 3, 64, 64) if size == 224 else (2, 3, 33, 66))
    assert math.isfinite(Expressivity(size=40, images=2)(arch))


def test_objectives_are_told_apart() -> None:
    assert describe(Expressivity()) == "Expressivity(size=96, images=16, seed=0)"
    assert describe(checked) == "blockforge.search.score:checked"


def test_kendall_on_known_rankings() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall([1, 1], [1, 2]) is None
    assert kendall([], []) is None


def test_ranking_and_front() -> None:
    figures = [(3.0, 30), (1.0, 10), (2.0, 20), (2.0, 15), (2.5, 40), (3.0, 35)]
    trials = [TrialRecord(i, "scored", score=s, macs=m) for i, (s, m) in enumerate(figures)]
    trials.append(TrialRecord(6, "failed", macs=1))
    assert [t.number for t in ranked(trials)] == [0, 5, 4, 3, 2, 1]
    assert [t.number for t in pareto_front(trials)] == [1, 3, 0]
