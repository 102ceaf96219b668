"""Holes: how they are read, named, asked for and filled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockforge.errors import Locs, Report, SpecError
from blockforge.spec import Hole, fill, from_text, holes, load, resolve
from blockforge.spec.references import lift
from blockforge.spec.values import plain

Tiny = Callable[..., str]
DESIGN = Path(__file__).parents[1] / "data" / "design"


def read(tree: Any) -> Any:
    report = Report(Locs())
    found = lift(tree, report)
    report.close()
    return found


def first(hole: Hole) -> Any:
    return hole.labels[0] if hole.kind == "choice" else hole.low


def last(hole: Hole) -> Any:
    return hole.labels[-1] if hole.kind == "choice" else hole.high


# --- reading


@pytest.mark.parametrize(
    ("tree", "inside", "outside"),
    [
        ({"$choice": [2, "all", None]}, [2, "all"], [3, True, "2"]),
        ({"$choice": [True, "x"]}, [True], [1, 1.0]),
        ({"$int": [1, 4]}, [1, 4], [0, 5, 2.0, True, "2"]),
        ({"$int": [64, 256, 32]}, [64, 96, 256], [65, 288]),
        ({"$float": [0, 0.5]}, [0, 0.25, 0.5], [-0.1, 0.6, "0.1", True]),
        ({"$log": [1e-5, 1e-2]}, [1e-5, 1e-3], [0.0, 1.0]),
    ],
)
def test_what_a_hole_may_become(tree: Any, inside: list[Any], outside: list[Any]) -> None:
    hole = read(tree)
    assert all(v in hole for v in inside)
    assert not any(v in hole for v in outside)
    assert plain(hole) == tree


def test_labels_are_scalars_and_all_different() -> None:
    options = [
        {"op": "sam"},
        {"op": "sam", "expand": 2},
        "sam",
        {"rule": "sparx"},
        {"skip": 1.0},
        [0, 3],
        [0, 3, 1],
        {"$int": [1, 2]},
        4,
        0.5,
        True,
    ]
    hole = read({"$choice": options})
    assert hole.labels[0] == "sam#0"  # the text 'sam' keeps its own name
    assert hole.labels[1:] == (
        "sam#1", "sam", "sparx", "{skip: 1.0}", "[0, 3]", "[0, 3, 1]", "int", 4, 0.5, True,
    )  # fmt: skip
    assert [hole.index(label) for label in hole.labels] == list(range(len(options)))


def test_holes_inside_choices_have_the_path_of_what_they_fill() -> None:
    found = read({"connect": {"$choice": ["none", {"rule": "sparx", "stride": {"$int": [1, 4]}}]}})["connect"]
    assert found.options[1]["stride"].name == "connect.stride"
    assert found.options[1]["stride"].written == ("connect", "$choice", 1, "stride")


def test_equal_holes_of_two_choices_are_one() -> None:
    """Both options ask the same question, so the sampler may learn from one for the other."""
    hole = read({"a": {"$choice": [{"op": "x", "n": {"$int": [1, 4]}}, {"op": "y", "n": {"$int": [1, 4]}}]}})["a"]
    assert {o["n"].name for o in hole.options} == {"a.n"}


def test_different_holes_of_two_choices_have_different_names() -> None:
    hole = read({"a": {"$choice": [{"op": "x", "n": {"$int": [1, 4]}}, {"op": "y", "n": {"$int": [1, 8]}}]}})["a"]
    assert [o["n"].name for o in hole.options] == ["a.n@x", "a.n@y"]


def test_a_hole_that_is_itself_a_choice_has_a_name_of_its_own() -> None:
    hole = read({"a": {"$choice": [{"$int": [1, 4]}, {"$float": [0.0, 1.0]}, 7]}})["a"]
    assert [o.name for o in hole.options[:2]] == ["a@int", "a@float"]


HOLE = st.recursive(
    st.sampled_from([{"$int": [1, 4]}, {"$int": [2, 8, 2]}, {"$float": [0.0, 1.0]}, 1, "x", "y"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3, unique_by=str).map(lambda options: {"$choice": options})
        | st.dictionaries(st.sampled_from("pq"), inner, min_size=1, max_size=2)
        | st.lists(inner, min_size=1, max_size=2)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("ab"), HOLE, min_size=1))
def test_one_name_never_stands_for_two_holes(tree: dict[str, Any]) -> None:
    """What a sampler needs: a name always has the same kind and range; and the tree comes back as written."""
    lifted = read(tree)
    assert plain(lifted) == tree
    seen: dict[str, Any] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Hole):
            assert seen.setdefault(value.name, value.tree()) == value.tree()
            assert len(set(map(str, value.labels))) == len(value.labels)
        for child in value.options if isinstance(value, Hole) else value.values() if isinstance(value, dict) else ():
            visit(child)

    visit(lifted)


def test_notes_are_free_form(tiny: Tiny) -> None:
    note = {"cost": "$5", "$choice": "a word"}
    spec = load({**from_text(tiny()).tree, "about": note})
    assert spec.tree["about"] == note
    assert not holes(spec)


# --- the design's space


@pytest.fixture(scope="module")
def space() -> Any:
    return load(DESIGN / "space_hybrid.yaml")


def test_the_holes_of_the_design_space(space: Any) -> None:
    found = holes(space)
    assert list(found)[:8] == [
        "let.S", "let.M", "let.strip", "let.heads", "blocks.sam.1.mlp_ratio", "blocks.msa.0.head_dim",
        "blocks.ssd.0.d_state", "downsample.op",
    ]  # fmt: skip
    keys = [["dim", "depth", "layers"]] * 2 + [
        ["dim", "depth", "layers", "connect"],
        ["dim", "depth", "layers"],
    ]
    assert list(found)[8:] == [f"stages.{i}.{key}" for i in range(4) for key in keys[i]]
    assert found["let.M"].labels == (1, 2, 3, "all")
    assert (found["stages.2.dim"].low, found["stages.2.dim"].high, found["stages.2.dim"].step) == (
        128,
        512,
        32,
    )
    assert found["stages.2.connect"].labels == ("none", "sparx")
    assert found["stages.2.layers"].labels[1] == "sam* msa*"


def test_only_what_matters_is_asked(space: Any) -> None:
    """Blocks that no layer names, and names that nothing uses, have no say in a candidate."""
    asked: list[str] = []
    answers = {"stages.0.layers": "sam", "stages.2.layers": "ssd", "stages.2.connect": "none"}

    def ask(hole: Hole) -> Any:
        asked.append(hole.name)
        return answers.get(hole.name, last(hole))

    plan = resolve(space, ask)
    assert len(asked) == len(set(asked))
    assert set(plan.answers) == set(asked)
    assert "blocks.sam.1.mlp_ratio" in asked  # stage 0
    assert "let.heads" in asked
    assert "let.strip" in asked  # stage 1 takes its last choice, strip
    assert not {"let.S", "let.M", "blocks.msa.0.head_dim"} & set(asked)


def test_one_hole_behind_a_name_is_asked_once_and_shared(tiny: Tiny) -> None:
    text = tiny(("let: {heads: 4}", "let: {heads: {$choice: [2, 4]}}"), ("num_heads: 4}", "num_heads: $heads}"))
    plan = resolve(from_text(text), last)
    assert plan.answers == {"let.heads": 4}
    heads = [b.op.spec.params.get("num_heads") for s in plan.stages for _, block in s.layers for b in block]
    assert set(heads) == {4, None}


def test_answers_must_fit(tiny: Tiny) -> None:
    spec = from_text(tiny(("dim: 64", "dim: {$int: [64, 128, 32]}")))
    with pytest.raises(SpecError, match=r"65 is not a value of the hole 'stages.1.dim'"):
        resolve(spec, lambda hole: 65)
    with pytest.raises(SpecError, match=r"65 is not a value of the hole 'stages.1.dim'"):
        fill(spec, {"stages.1.dim": 65})


@pytest.mark.parametrize("choose", [first, last])
def test_a_filled_space_is_an_ordinary_spec(space: Any, choose: Callable[[Hole], Any]) -> None:
    """It has no holes, nothing unused, the same plan as the space with those answers, and it reads back."""
    plan = resolve(space, choose)
    spec = fill(space, plan.answers, name="best")
    again = from_text(spec.to_yaml())
    assert spec.name == again.name == "best"
    assert again.tree == spec.tree
    assert not holes(spec)
    filled = resolve(again)
    for a, b in zip(plan.stages, filled.stages, strict=True):
        assert (a.dim, a.window) == (b.dim, b.window)
        assert [(n, [x.op.spec for x in block]) for n, block in a.layers] == [
            (n, [x.op.spec for x in block]) for n, block in b.layers
        ]
        assert a.connect == b.connect
    used = {name for stage in filled.stages for name, _ in stage.layers}
    assert set(spec.tree["blocks"]) == used
    text = str({k: v for k, v in spec.tree.items() if k != "let"})
    assert all(f"${name}" in text for name in spec.tree.get("let", {}))


def test_blocks_named_through_let_stay(tiny: Tiny) -> None:
    text = tiny(
        ("layers: sam}", "layers: $plan, let: {plan: $other}}"),
        ("let: {heads: 4}", "let: {heads: 4, other: msa, unused: 3}"),
        ("layers: (sam msa)*", "layers: msa"),
    )
    tree = fill(from_text(text), {}).tree
    assert set(tree["blocks"]) == {"msa"}
    assert tree["let"] == {"other": "msa"}
    assert tree["stages"][0]["let"] == {"plan": "$other"}


def test_whole_parts_may_be_holes(tiny: Tiny) -> None:
    """A stage, a block, the list of skips, the input: each in place of its value."""
    small_stage = "{dim: 64, depth: 4, layers: msa}"
    large_stage = "{dim: 96, depth: $deep, layers: sam, let: {deep: 3, heads: 8}}"
    msa = "[{op: attention, num_heads: 4}, {op: mlp, mlp_ratio: 2}]"
    text = tiny(
        ("  msa:\n    - {op: attention, num_heads: 4}\n    - {op: mlp, mlp_ratio: 2}", f"  msa: {msa}"),
        (f"msa: {msa}", "msa: {$choice: [[mlp], [dwconv, mlp]]}"),
        ("- {dim: 64, depth: 4, layers: (sam msa)*}", f"- {{$choice: [{small_stage}, {large_stage}]}}"),
        ("head:", "skips: {$choice: [[], [{from: 0, to: [1], op: conv_downsample}]]}\nhead:"),
        ("input: {size: 64}", "input: {$choice: [{size: 64}, {size: 96}]}"),
    )
    spec = from_text(text)
    small, large = resolve(spec, first), resolve(spec, last)
    assert (small.stages[1].dim, len(small.stages[1].layers), len(small.skips)) == (64, 4, 0)
    assert len(small.stages[1].layers[0][1]) == 1
    assert (large.stages[1].dim, len(large.stages[1].layers), len(large.skips)) == (96, 3, 1)
    assert large.input.size == [96, 96]
    assert large.stages[1].layers[0][1][0].op.spec.params == {"num_heads": 8}
    assert resolve(fill(spec, large.answers)).stages[1].dim == 96


def test_errors_point_at_the_choice_that_was_taken(tiny: Tiny) -> None:
    spec = from_text(tiny(("(sam msa)*}", "{$choice: [sam, sam*3 msa*3]}}")))
    with pytest.raises(SpecError, match="gives 6 layers, the depth is 4") as caught:
        resolve(spec, last)
    assert "| " + " " * 48 + "^" * 11 in str(caught.value)


def test_the_values_of_a_hole_are_told_as_they_are_written() -> None:
    assert read({"skip": {"$choice": [True, False, "all", 2]}})["skip"].values() == "true, false, all, 2"
