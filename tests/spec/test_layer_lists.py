"""`layers` as a list of patterns and ops, without a depth, of no layers; what it may name."""

from __future__ import annotations

from typing import Any

import pytest

from blockforge.errors import SpecError
from blockforge.spec import fill, holes, load, resolve
from blockforge.spec.patterns import EndlessError, PatternError, expand, of_list

CONV = {"op": "dwconv", "kernel_size": 5}


def spec(*stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "blockforge": 1,
        "name": "listed",
        "blocks": {"a": ["mlp"], "b": ["attention"]},
        "define": {
            "wide": {"params": {"times": 2}, "body": [{"op": "linear", "dim": "$(times * in)"}, {"op": "linear"}]}
        },
        "stem": {"op": "conv_stem"},
        "downsample": {"op": "conv_downsample"},
        "stages": [{"dim": 16, **stage} for stage in stages],
        "head": {"op": "classifier"},
        **more,
    }


def layers(*stages: dict[str, Any], **more: Any) -> list[list[str]]:
    return [[name for name, _ in stage.layers] for stage in resolve(load(spec(*stages, **more))).stages]


@pytest.mark.parametrize(
    ("parts", "depth", "expected"),
    [
        ((0, "a*3"), None, (0, "a", "a", "a")),
        ((0, "a*"), 3, (0, "a", "a")),
        ((0, 1, "a* b*"), 5, (0, 1, "a", "a", "b")),
        (("a", "b"), None, ("a", "b")),
        (("a*", 1), 3, ("a", "a", 1)),
        ("a*2 b", None, ("a", "a", "b")),
        ("a", 0, ()),
        ("m.se*2", None, ("m.se", "m.se")),
    ],
)
def test_lists_are_read_as_one_pattern(parts: Any, depth: int | None, expected: tuple[Any, ...]) -> None:
    assert expand(parts, depth) == expected


def test_patterns_without_an_end_need_a_depth() -> None:
    for pattern in ("a", "a*2 b*", ("a*", 1)):
        with pytest.raises(EndlessError, match="has no end"):
            expand(pattern)
    with pytest.raises(PatternError, match="the list gives 2 layers, the depth is 3"):
        expand((0, "a"), 3)
    with pytest.raises(PatternError, match=r"the list needs at least 2 layers, the depth is 1") as e:
        expand((0, "a", "b*"), 1)
    assert e.value.item is None
    with pytest.raises(PatternError, match="never closed") as e:
        expand((0, "(a"), 1)
    assert e.value.item == 1


def test_ops_are_numbered_by_their_place() -> None:
    assert of_list([CONV, "a*2", ["mlp"]]) == (0, "a*2", 2)


def test_a_list_of_ops_and_patterns() -> None:
    assert layers({"layers": [CONV, "a*2", ["layer_norm", "mlp"]]}, {"layers": "a b"}) == [
        ["dwconv", "a", "a", "chain"],
        ["a", "b"],
    ]


def test_no_layers() -> None:
    assert layers({}, {"depth": 0}, {"depth": 0, "layers": "a"}) == [[], [], []]


def test_an_op_has_nothing_around_it() -> None:
    more = {"defaults": {"norm": "layer_norm", "scale": 0.1}}
    (stage,) = resolve(load(spec({"layers": [CONV, "wide", "a"]}, **more))).stages
    *alone, (_, (around,)) = stage.layers
    for _, (branch,) in alone:
        assert (branch.norm, branch.post_act, branch.keys.skip, branch.keys.scale) == (None, None, False, None)
    assert around.norm is not None
    assert around.keys.skip is True


def test_names_are_blocks_then_definitions_then_ops() -> None:
    plan = resolve(load(spec({"layers": "mlp wide b"}, blocks={"mlp": ["attention"], "b": ["mlp"]})))
    ((first, wide, _),) = [[branches for _, branches in stage.layers] for stage in plan.stages]
    assert [branch.op.spec.op for branch in first] == ["attention"]
    assert [branch.op.spec.op for branch in wide] == ["wide"]
    assert layers({"layers": "dwconv identity"}) == [["dwconv", "identity"]]


def test_an_op_reads_its_layer() -> None:
    op = {"op": "dwconv", "kernel_size": "$(kernels[layer])"}
    stage = {"depth": 3, "layers": ["a", op, {"op": "dwconv", "kernel_size": "$(2 * depth + 1)"}]}
    (found,) = resolve(load(spec(stage, let={"kernels": [3, 5, 7]}))).stages
    assert [branches[0].op.spec.params.get("kernel_size") for _, branches in found.layers] == [None, 5, 7]


def test_holes_in_a_list() -> None:
    hole = {"$choice": [3, 5]}
    which = {"$choice": ["a*2", "wide*2"]}
    define = {"wide": [{"op": "linear", "dim": {"$int": [16, 32, 16]}}, {"op": "linear"}]}
    read = load(spec({"layers": [{**CONV, "kernel_size": hole}, which]}, define=define))
    kernel, chosen, width = (
        "stages.0.layers.0.kernel_size",
        "stages.0.layers.1",
        "define.wide.0.dim",
    )
    assert set(holes(read)) == {kernel, chosen, width}
    asked: list[str] = []

    def ask(hole: Any) -> Any:
        asked.append(hole.name)
        return hole.labels[-1] if hole.labels else 32

    assert [name for name, _ in resolve(read, ask).stages[0].layers] == ["dwconv", "wide", "wide"]
    assert sorted(asked) == sorted([kernel, chosen, width])
    without = fill(read, {kernel: 5, chosen: "a*2"})
    assert without.tree["stages"][0]["layers"] == [{**CONV, "kernel_size": 5}, "a*2"]
    assert "define" not in without.tree
    assert set(fill(read, {chosen: "wide*2"}).tree["define"]) == {"wide"}
    assert "blocks" not in fill(read, {chosen: "wide*2"}).tree or not fill(read, {chosen: "wide*2"}).tree["blocks"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"layers": []}, r"this list should have at least 1 item, not 0 \(stages\[0\].layers\)"),
        ({"layers": [3]}, r"this should be a block: .*, not 3 \(stages\[0\].layers\[0\]\)"),
        ({"layers": 3}, r"this should be a pattern of names, or a list of patterns and blocks, not 3"),
        ({"layers": [{"kernel_size": 3}]}, r"the key 'op' is missing \(stages\[0\].layers\[0\].op\)"),
        ({"layers": [CONV, "a*2 c"]}, r"there is no block named 'c' \(stages\[0\].layers\[1\]\)"),
        ({"layers": [CONV, {"$choice": ["a", "c"]}]}, r"no block named 'c' \(stages\[0\].layers\[1\].\$choice\[1\]\)"),
        ({"layers": [CONV, "(a"]}, r"'\(' is never closed \(stages\[0\].layers\[1\]\)"),
        ({"layers": [CONV, "a*2"], "depth": 4}, "the list gives 3 layers, the depth is 4"),
        ({"layers": [CONV, "a*"]}, "the key 'depth' is missing"),
        ({"layers": "a"}, "the key 'depth' is missing"),
        ({"layers": {"$choice": ["a", "b"]}}, "the key 'depth' is missing"),
        ({"depth": 2}, "the key 'layers' is missing"),
        ({"layers": ["a*1000", CONV]}, "at most 1000 layers"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(load(spec(stage)), lambda hole: hole.labels[0])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("($mixer*$n b)*", ["a", "a", "b", "a"]),
        ("$mixer b*", ["a", "b", "b", "b"]),
        ("$mixer*$(n + 1) $(mixer)", ["a", "a", "a", "a"]),
        (["$mixer*$n", CONV, "$(other if n > 1 else mixer)"], ["a", "a", "dwconv", "b"]),
        ("$whole", ["a", "b", "a", "b"]),
    ],
)
def test_patterns_may_hold_names_and_expressions(pattern: Any, expected: list[str]) -> None:
    let = {"mixer": "a", "other": "b", "n": 2, "whole": "(a b)*"}
    assert layers({"depth": 4, "layers": pattern}, let=let) == [expected]


def test_holes_reach_patterns_through_names() -> None:
    let = {"mixer": {"$choice": ["a", "b"]}, "n": {"$int": [1, 3]}}
    space = load(spec({"depth": 4, "layers": "($mixer*$n a)*"}, let=let))
    assert set(holes(space)) == {"let.mixer", "let.n"}
    filled = fill(space, {"let.mixer": "b", "let.n": 3})
    assert filled.tree["stages"][0]["layers"] == "($mixer*$n a)*"
    assert [name for name, _ in resolve(filled).stages[0].layers] == ["b", "b", "b", "a"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a*$ b)*", r"'\$' begins a name"),
        ("a*$(n b*", "never closed|no place here"),
        ("a*$nosuch b*", r"no let gives \$nosuch"),
        ("a*$(n / 4) b*", "0.5 is neither the name of a block nor a whole number"),
        ("a*$in b*", "which only the maps give"),
        ("$mixer*$n c", "no block named 'c'"),
        ("a*$big b*", "a stage has at most|a part can stand 1 to"),
    ],
)
def test_wrong_names_in_patterns(pattern: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        layers({"depth": 4, "layers": pattern}, let={"mixer": "a", "n": 2, "big": 99999})
