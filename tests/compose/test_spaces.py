"""Spaces whose candidates differ inside composed blocks: holes in chains, calls and definitions."""

from __future__ import annotations

from typing import Any

import pytest
from networks import dwconv, linear, network

import blockforge as bf
from blockforge.compiler import Architecture, compile_spec
from blockforge.draw.summary import compact
from blockforge.errors import SpecError
from blockforge.search.space.fit import fit
from blockforge.search.space.load import load_space
from blockforge.search.space.locate import locate
from blockforge.search.space.size import count, enumerate_space
from blockforge.spec import fill, from_text, holes, load
from blockforge.testing import check_spec

CHAIN = [linear("$(ratio * in)"), {"$choice": ["gelu", "silu"]}, linear()]
CALL = {"op": "wide", "kernel_size": {"$choice": [3, 5]}, "mid": "$ratio"}
BODY = [dwconv("$kernel_size"), linear("$(mid * in)"), "relu", linear()]


def space(body: list[Any]) -> dict[str, Any]:
    define = {"wide": {"params": {"kernel_size": 3, "mid": 2}, "body": body}}
    return network(CALL, {"op": CHAIN}, define=define, let={"ratio": {"$choice": [1, 2]}}, input={"size": [32, 32]})


def test_holes_are_named_by_where_they_stand() -> None:
    body = [dwconv({"$choice": [3, 7]}), *BODY[1:]]
    assert set(holes(load_space(space(body)))) == {
        "let.ratio", "blocks.b.0.kernel_size", "blocks.b.1.op.1", "define.wide.body.0.kernel_size",
    }  # fmt: skip


def test_holes_of_definitions_are_counted() -> None:
    assert count(load_space(space(BODY))).combinations == 8
    assert count(load_space(space([dwconv({"$choice": [3, 7]}), *BODY[1:]]))).combinations == 16


def test_definitions_that_nothing_names_do_not_count() -> None:
    unused = {"params": {"k": 3}, "body": [dwconv({"$choice": [3, 5, 7]}), "wide"]}
    tree = space([dwconv({"$choice": [3, 7]}), *BODY[1:]])
    tree["define"] |= {"unused": unused}
    assert count(load_space(tree)).combinations == 16
    tree["stages"][1] |= {"layers": "b unused"}
    assert count(load_space(tree)).combinations == 16 * 3


def test_every_candidate_is_found_in_the_space() -> None:
    among = load_space(space(BODY))
    found = 0
    for answers, candidate in enumerate_space(among):
        assert not isinstance(candidate, Exception)
        assert locate(among, candidate.spec) == answers
        found += 1
    assert found == 8


def test_a_candidate_is_what_its_graph_says() -> None:
    *_, (_, last) = enumerate_space(load_space(space(BODY)))
    assert not isinstance(last, Exception)
    check_spec(last)


@pytest.mark.parametrize("share", [0.5, 2])
def test_widths_are_fitted_to_a_budget(share: float) -> None:
    (_, arch), *_ = enumerate_space(load_space(space(BODY)))
    assert not isinstance(arch, Exception)
    budget = int(arch.macs * share)
    fitted = fit(arch, f"{budget}MACs")
    assert 0.8 * budget < fitted.macs <= budget


def test_choices_may_have_names() -> None:
    named = {"op": {"$choice": {"plain": CHAIN, "gated": [linear(), "silu", linear()]}}}
    among = load_space(network(named, let={"ratio": 2}, require=["blocks.b.0.op != 'gated'"], input={"size": [32, 32]}))
    assert holes(among)["blocks.b.0.op"].labels == ("plain", "gated")
    outcomes = {answers["blocks.b.0.op"]: outcome for answers, outcome in enumerate_space(among)}
    assert isinstance(outcomes["gated"], SpecError)
    assert isinstance(outcomes["plain"], Architecture)
    assert locate(among, outcomes["plain"].spec)["blocks.b.0.op"] == "plain"
    assert from_text(among.to_yaml(), "named.yaml").tree == among.tree


@pytest.mark.parametrize("choices", [{"a b": 1}, {1: "x"}, {}, {"$int": [1, 2]}])
def test_names_of_choices_are_names(choices: dict[Any, Any]) -> None:
    with pytest.raises(SpecError, match=r"names no choice|needs a list of 1|hole"):
        load(network({"op": {"$choice": choices}}))


def test_an_empty_stage_leaves_no_trace_in_the_hash() -> None:
    tree = network("mlp", input={"size": [32, 32]})
    nothing, (first, *others) = {"downsample": "identity"}, tree["stages"]
    empty = {**tree, "stages": [nothing, {**first, "downsample": "none"}, nothing, *others, nothing]}
    assert compile_spec(empty).hash == compile_spec(tree).hash
    assert compact([]) == "none"
    check_spec(empty)


def test_spaces_may_have_more_stages_than_a_spec() -> None:
    tree = network("mlp", input={"size": [32, 32]})
    choice = {
        "$choice": {"empty": {"downsample": "identity"}, "whole": {"dim": 16, "depth": {"$int": [1, 2]}, "layers": "b"}}
    }
    among = load_space({**tree, "stages": [*tree["stages"], choice]})
    assert locate(among, tree) == {f"stages.{len(tree['stages'])}": "empty"}


def test_holes_inside_definitions_are_found() -> None:
    among = load_space(space([dwconv({"$choice": [3, 7]}), *BODY[1:]]))
    for answers, candidate in enumerate_space(among):
        assert not isinstance(candidate, Exception)
        assert locate(among, fill(among, answers)) == answers


@pytest.mark.parametrize("when", [False, "$(ratio > 5)", {"$choice": [False, True]}])
def test_what_is_left_out_early_asks_for_nothing(when: Any) -> None:
    inner = {"op": "wide", "kernel_size": {"$choice": [3, 5]}, "mid": {"$int": [1, 3]}, "when": when}
    outer = {"op": [linear("$(2 * in)"), {"$choice": ["gelu", "silu"]}, linear()], "when": when}
    define = {"wide": {"params": {"kernel_size": 3, "mid": "required"}, "body": BODY}}
    among = load_space(network({"op": ["layer_norm", inner]}, outer, define=define, let={"ratio": 2}))
    first = compile_spec(among, ask=lambda hole: hole.labels[0] if hole.labels else hole.low)
    named = {"blocks.b.0.op.1.when", "blocks.b.1.when"} if isinstance(when, dict) else set()
    assert set(first.plan.answers) == named
    filled = fill(among, first.plan.answers)
    assert compile_spec(filled).hash == first.hash
    assert compile_spec(from_text(bf.expand(filled), "written.yaml")).hash == first.hash
    assert locate(among, filled) == first.plan.answers
