"""Laws that hold for any valid spec, drawn at random over every registered block, rule and scale."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from hypothesis import assume, given, settings

import blockforge as bf
from blockforge.compiler import Architecture
from blockforge.compiler.lowering.outputs import by_name
from blockforge.spec import to_yaml
from blockforge.spec.load import from_text
from blockforge.testing import check_spec
from blockforge.testing.stage_graphs import stage_graphs
from blockforge.testing.strategies import specs

CANNOT_MEET = {"shape", "skip-shape", "divisibility", "map-too-small", "sizes", "tokens"}
"""What a strategy cannot know when it draws a block: how large the map is that will reach it."""


def compiled(tree: dict[str, Any]) -> Architecture:
    """The architecture of a drawn spec; the few whose shapes cannot meet are drawn again."""
    try:
        return bf.compile(tree)
    except bf.SpecError as e:
        assume(not {d.code for d in e.diagnostics} <= CANNOT_MEET)
        raise


@settings(max_examples=25)
@given(specs())
def test_costs_shapes_memory_and_training(tree: dict[str, Any]) -> None:
    check_spec(compiled(tree))


@settings(max_examples=8)
@given(specs(without_identity=True))
def test_branches_without_their_identity_path(tree: dict[str, Any]) -> None:
    check_spec(compiled(tree))


@settings(max_examples=3)
@given(stage_graphs())
def test_stages_that_form_a_graph(tree: dict[str, Any]) -> None:
    arch = compiled(tree)
    model = check_spec(arch).eval()
    for text in (to_yaml(arch.spec), bf.expand(tree)):
        assert bf.compile(from_text(text)).hash == arch.hash
    assert Architecture.from_json(arch.to_json()).hash == arch.hash
    for picture in (bf.to_svg, bf.to_dot, bf.to_mermaid):
        assert picture(arch)
    x = torch.randn(2, arch.plan.input.channels, *arch.plan.input.size)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


@settings(max_examples=25)
@given(specs())
def test_yaml_round_trip(tree: dict[str, Any]) -> None:
    arch = compiled(tree)
    text = to_yaml(arch.spec)
    again = from_text(text)
    assert again.tree == arch.spec.tree
    assert to_yaml(again) == text
    assert bf.compile(again).hash == arch.hash


@settings(max_examples=25)
@given(specs())
def test_written_out(tree: dict[str, Any]) -> None:
    arch = compiled(tree)
    text = bf.expand(tree)
    assert bf.compile(from_text(text)).hash == arch.hash
    assert bf.expand(from_text(text)) == text


@settings(max_examples=15)
@given(specs())
def test_json_round_trip(tree: dict[str, Any]) -> None:
    arch = compiled(tree)
    again = Architecture.from_json(arch.to_json())
    assert (again.hash, again.to_json()) == (arch.hash, arch.to_json())


@settings(max_examples=5)
@given(specs())
def test_equal_seeds_give_equal_models(tree: dict[str, Any]) -> None:
    arch = compiled(tree)
    first, second = (bf.build(a, seed=7).eval() for a in (arch, tree))
    state = second.state_dict()
    assert first.code == second.code
    assert all(torch.equal(v, state[k]) for k, v in first.state_dict().items())
    size = arch.plan.input
    x = torch.randn(1, size.channels, *size.size)
    with torch.no_grad():
        expected = by_name(second(x))
        assert all(torch.equal(y, expected[name]) for name, y in by_name(first(x)).items())


@settings(max_examples=25)
@given(specs())
def test_spelling_does_not_change_the_hash(tree: dict[str, Any]) -> None:
    """Patterns written out, names changed, keys in another order, values behind `let`: one architecture."""
    arch = compiled(tree)
    other = {k: tree[k] for k in reversed(tree)}
    other["name"] = "renamed"
    other["let"] = {"classes": tree["num_classes"]}
    other["num_classes"] = "$classes"
    other["stages"] = [
        {**stage, "layers": " ".join(f"{name}*1" for name, _ in planned.layers)}
        for stage, planned in zip(tree["stages"], arch.plan.stages, strict=True)
    ]
    assert bf.compile(other).hash == arch.hash
