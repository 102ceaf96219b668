"""Spaces: the packaged ones, what is refused, and what counts as the same space."""

from __future__ import annotations

import pytest

import blockforge as bf
from blockforge.search import SearchError, list_spaces, load_space
from blockforge.search.samplers.registry import check_sampler
from blockforge.search.space.load import check_requirements, differences, fingerprint, values
from blockforge.search.space.locate import NotInSpaceError, locate
from blockforge.search.space.parameters import label_of
from blockforge.search.space.statistics import sample_costs
from blockforge.spec import Hole, Spec, fill, holes
from blockforge.units import Budget

SEEDS = {
    "sparx": "sparx_mamba_*",
    "smt": "smt_*",
    "vssd": "vssd_*",
    "mambavision": "mambavision_*",
    "strip": "strip_mlp_*",
}
OFF_THE_GRID = {"sparx_mamba_s", "sparx_mamba_b", "mambavision_l", "mambavision_l2"}
"""Variants whose widths are not among those of the default space."""
ALL_SEEDS = [name for pattern in SEEDS.values() for name in bf.list_specs(pattern)]


@pytest.mark.parametrize("name", list_spaces())
def test_packaged_spaces_load_and_compile(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    sample = sample_costs(space, 40, 0, Budget())
    assert sample.valid >= 8, sample.refused
    blocks = [why for why in sample.refused if why not in space.tree["require"]]
    assert blocks == []  # what cannot stand together is said in `require`


@pytest.mark.parametrize(("space", "name"), [(s, n) for s, pattern in SEEDS.items() for n in bf.list_specs(pattern)])
def test_every_seed_is_a_point_of_its_family(space: str, name: str) -> None:
    _is_point(name, load_space(space))


@pytest.mark.parametrize("name", [n for n in ALL_SEEDS if n not in OFF_THE_GRID])
def test_seeds_are_points_of_the_default_space(name: str) -> None:
    _is_point(name, load_space())


def _is_point(name: str, space: Spec) -> None:
    answers = locate(space, name)
    found = bf.compile(space, ask=lambda hole: answers[hole.name])
    drop_path = space.tree["drop_path"]
    assert found.hash == bf.compile(name, {"drop_path": drop_path}).hash
    assert found.plan.answers == answers


def test_a_point_is_found_at_the_size_of_the_space() -> None:
    space = load_space("smt", ["input.size=64", "num_classes=10"])
    answers = locate(space, "smt_t")
    assert bf.compile(space, ask=lambda hole: answers[hole.name]).plan.num_classes == 10


@pytest.mark.parametrize("name", sorted(OFF_THE_GRID))
def test_what_lies_outside_is_said(name: str) -> None:
    dim = bf.compile(name).plan.stages[2].dim
    with pytest.raises(NotInSpaceError, match=f"'{name}' is no point of 'hybrid'\n(.*\n)*.*the spec has {dim}, ") as e:
        locate(load_space(), name)
    assert all(reason.startswith("stages.") for reason in e.value.reasons)


def test_other_stages_and_unfit_combinations_are_said(tiny: Spec) -> None:
    with pytest.raises(NotInSpaceError, match="stages: the spec has 4, the space 2"):
        locate(tiny, "smt_t")
    inside = fill(tiny, {"let.heads": 2, "stages.0.layers": "sam", "stages.1.layers": "sam"})
    assert locate(tiny, inside)["let.heads"] == 2
    space = bf.load(tiny, {"stages.0.layers": {"$choice": ["sam", "dw"]}})
    mixed = bf.load(inside, {"blocks.other": [{"op": "sam", "num_heads": 1}, {"op": "conv_mlp", "mlp_ratio": 2}]})
    mixed = bf.load(mixed, {"stages.0.layers": "other"})
    with pytest.raises(NotInSpaceError, match="not all with one value for each hole that they share"):
        locate(space, mixed)


def test_a_relation_keeps_a_seed_out() -> None:
    space = load_space("smt", {"require": ["stages.3.depth >= 2"]})
    assert locate(space, "smt_s")["stages.3.depth"] == 2
    with pytest.raises(NotInSpaceError, match=r"stages\.3\.depth >= 2 does not hold: stages\.3\.depth is 1"):
        locate(space, "smt_t")


def test_relations_tell_by_how_much_they_are_broken(tiny: Spec) -> None:
    space = bf.load(tiny, {"require": ["stages.1.dim >= 2 * stages.0.dim", "stages.1.connect.stride < 2"]})
    answers = {"stages.0.dim": 16, "stages.1.dim": 24, "stages.1.connect": "none"}
    assert check_requirements(space, answers) == {"require.0": pytest.approx(0.25), "require.1": 0.0}
    answers |= {"stages.1.dim": 32, "stages.1.connect": "sparx", "stages.1.connect.stride": 2}
    assert check_requirements(space, answers) == {"require.0": 0.0, "require.1": pytest.approx(1e-6)}


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
