"""Spaces: the packaged ones, what is refused, and what counts as the same space."""

from __future__ import annotations

import pytest

import blockforge as bf
from blockforge.search import SearchError, list_spaces, load_space
from blockforge.search.sampling import check_sampler, label_of
from blockforge.search.space import differences, fingerprint, values
from blockforge.spec import Hole, Spec, fill, holes


@pytest.mark.parametrize("name", list_spaces())
def test_packaged_spaces_load_and_compile(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert bf.compile(space, ask=lambda hole: values(hole)[0]).params > 0
    assert bf.compile(space, ask=lambda hole: values(hole)[-1]).params > 0


SMT = {
    "let.expand": 2,
    "stem.kernel_size": 3,
    "stages.0.dim": 64,
    "stages.1.dim": 128,
    "stages.2.dim": 256,
    "stages.3.dim": 512,
    "stages.0.layers": "sam",
    "stages.1.layers": "sam",
    "stages.2.layers": "(sam msa)*",
    "stages.3.layers": "msa",
    "stages.0.let.sam_heads": 4,
    "stages.1.let.sam_heads": 4,
    "stages.2.let.sam_heads": 4,
    "stages.2.let.num_heads": 8,
    "stages.3.let.num_heads": 16,
    "stages.1.connect": "none",
    "stages.2.connect": "none",
}


@pytest.mark.parametrize(
    ("name", "kernel_size", "depths", "ratios"),
    [
        ("smt_t", 3, (2, 2, 8, 1), (4, 4, 4, 2)),
        ("smt_s", 3, (3, 4, 18, 2), (4, 4, 4, 2)),
        ("smt_b", 7, (4, 6, 28, 2), (8, 6, 4, 2)),
    ],
)
def test_smt_is_a_point_of_the_default_space(
    name: str, kernel_size: int, depths: tuple[int, ...], ratios: tuple[int, ...]
) -> None:
    answers = SMT | {"stem.kernel_size": kernel_size}
    answers |= {f"stages.{i}.depth": depth for i, depth in enumerate(depths)}
    answers |= {f"stages.{i}.let.mlp_ratio": ratio for i, ratio in enumerate(ratios)}
    found = bf.compile(load_space(), ask=lambda hole: answers[hole.name])
    assert found.hash == bf.compile(name, {"drop_path": 0.2}).hash


def test_a_filled_space_is_the_same_network(tiny: Spec) -> None:
    answers = {name: values(hole)[-1] for name, hole in holes(tiny).items()}
    asked = bf.compile(tiny, ask=lambda hole: answers[hole.name])
    assert bf.compile(fill(tiny, answers)).hash == asked.hash


def test_unknown_space_and_spec_without_holes() -> None:
    with pytest.raises(bf.SpecError, match=r"no search space named 'hybird'\n.*did you mean 'hybrid'"):
        load_space("hybird")
    with pytest.raises(SearchError, match="'smt_b' has no holes: there is nothing to search"):
        load_space("smt_b")
    with pytest.raises(SearchError, match=r"no sampler named 'tpee'\n.*did you mean 'tpe'"):
        check_sampler("tpee")


def test_fingerprint_ignores_names_and_notes(tiny: Spec) -> None:
    renamed = bf.load(tiny, {"name": "other", "about": {"note": "x"}})
    assert fingerprint(renamed) == fingerprint(tiny)
    assert differences(renamed, tiny) == []
    changed = bf.load(tiny, {"stages.1.depth": 2, "input.size": 64})
    assert fingerprint(changed) != fingerprint(tiny)
    assert differences(tiny, changed) == ["input.size", "stages[1].depth"]


def test_values_of_holes_cover_both_ends() -> None:
    assert values(Hole("int", ("a",), low=8, high=20, step=4)) == [8, 12, 16, 20]
    many = values(Hole("int", ("a",), low=1, high=100, step=1))
    assert (many[0], many[-1], len(many)) == (1, 100, 16)
    assert values(Hole("log", ("a",), low=1e-5, high=1e-2)) == [1e-5, 1e-2]
    assert values(Hole("choice", ("a",), (1, 2), (1, 2))) == [1, 2]


def test_labels_that_python_takes_for_equal_stay_apart() -> None:
    hole = Hole("choice", ("a",), (1, True), (1, True))
    assert label_of(hole, "1") is hole.labels[0]
    assert label_of(hole, "True") is True
