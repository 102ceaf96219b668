"""The packaged space whose candidates differ inside their blocks."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator

import pytest
import torch

import blockforge as bf
from blockforge.search import load_space
from blockforge.search.space.load import draw
from blockforge.search.space.locate import locate
from blockforge.spec import Spec, fill
from blockforge.testing.models import check_costs

POINTS = ["mobilenetv2_100", "resnet50", "convnext_t"]
PIECE = 100
"""Draws of a slow test."""


@pytest.fixture(scope="module")
def space() -> Spec:
    return load_space("blocks")


@pytest.mark.parametrize("name", POINTS)
def test_networks_of_three_families_are_points(name: str, space: Spec) -> None:
    answers = locate(space, name)
    found = bf.compile(space, ask=lambda hole: answers[hole.name])
    assert found.hash == bf.compile(name, {"drop_path": space.tree["drop_path"]}).hash
    assert found.plan.answers == answers


def test_draws_cost_what_is_counted(space: Spec) -> None:
    assert _valid(space, range(12)) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 5000, PIECE))
def test_thousands_of_draws_cost_what_is_counted(first: int, space: Spec) -> None:
    """5,000 draws in pieces of a minute or so: a run that was stopped goes on at `-k "thousands and 1200"`."""
    assert _valid(space, range(first, first + PIECE)) >= 0.6 * PIECE


def test_drawn_candidates_are_found_again(space: Spec) -> None:
    for arch in _drawn(space, range(4)):
        answers = locate(space, fill(space, arch.plan.answers))
        assert bf.compile(space, ask=lambda hole, answers=answers: answers[hole.name]).hash == arch.hash


def _valid(space: Spec, seeds: Iterable[int]) -> int:
    """How many random draws are networks. Of each the costs are counted, without memory."""
    valid = 0
    for arch in _drawn(space, seeds):
        with torch.device("meta"), torch.no_grad():
            check_costs(bf.build(arch))
        valid += 1
    return valid


def _drawn(space: Spec, seeds: Iterable[int]) -> Iterator[bf.Architecture]:
    """Random candidates without those that break a relation; nothing else is wrong with any."""
    for seed in seeds:
        try:
            yield bf.compile(space, ask=functools.partial(draw, rng=random.Random(seed)))
        except bf.SpecError as e:
            if {d.code for d in e.diagnostics} != {"require"}:
                raise
