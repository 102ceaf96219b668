"""`$(...)` in place of a value: what it computes, when, and what is said where it cannot."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

import blockforge as bf
from blockforge.compiler import compile_spec
from blockforge.errors import Report, SpecError
from blockforge.spec import Spec, fill, holes, load
from blockforge.spec.expressions.tree import ExpressionError
from blockforge.spec.load import from_text
from blockforge.spec.plan import Plan
from blockforge.spec.reporting import Origins
from blockforge.spec.resolve import resolve
from blockforge.spec.scope import Scope, Values
from blockforge.spec.values import Expr

TREE: dict[str, Any] = {
    "blockforge": 1,
    "name": "tiny",
    "input": {"size": 32},
    "let": {"w": 16, "double": "$(2 * w)", "kernels": [3, 5, 7, 9]},
    "blocks": {"dw": [{"op": "dwconv", "norm": "none"}]},
    "stem": "conv_stem",
    "downsample": "conv_downsample",
    "stages": [
        {"dim": "$w", "depth": 1, "layers": "dw"},
        {"dim": "$double", "depth": "$(w // 4)", "layers": "dw"},
    ],
    "head": "classifier",
}
NAMES: dict[str, Any] = {"in": 24, "w": 16, "ks": [3, 5], "layer": 1, "se": None, "act": "relu", "op": {"op": "mlp"}}


def tree(**changes: Any) -> dict[str, Any]:
    """The small spec with these values by path, `let__w=8`."""
    changed = copy.deepcopy(TREE)
    for path, value in changes.items():
        *way, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place: Any = changed
        for part in way:
            place = place[part] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = value
    return changed


def spec(**changes: Any) -> Spec:
    return load(tree(**changes))


def plan(**changes: Any) -> Plan:
    return resolve(spec(**changes))


def refused(**changes: Any) -> str:
    with pytest.raises(SpecError) as e:
        compile_spec(spec(**changes))
    return str(e.value)


def params(found: Plan, stage: int) -> list[dict[str, Any]]:
    return [branches[0].op.spec.params for _, branches in found.stages[stage].layers]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$(in)", 24),
        ("$(in / 2)", 12),
        ("$(in / 16)", 1.5),
        ("$(ks[layer] * 2)", 10),
        ("$(ks[0])", 3),
        ("$(near(in / 4, 8))", 8),
        ("$(8 if se else none)", "none"),
        ("$(se == none)", True),
        ("$(se)", "none"),
        ("$(op)", {"op": "mlp"}),
        ("$(op == none)", False),
        ("$('gelu' if act == 'relu' else act)", "gelu"),
        ("$(ks[1] > 3 and not se)", True),
    ],
)
def test_a_value_is_computed(text: str, value: Any) -> None:
    found = Expr.read(text).evaluate(NAMES.__getitem__)
    assert found == value
    assert type(found) is type(value)


def test_widths_round_as_make_divisible_does() -> None:
    for k in (4, 8, 32):
        for value in [n / 7 for n in range(1, 1400)]:
            expected = max(k, int(value + k / 2) // k * k)
            expected += k if expected < 0.9 * value else 0
            assert Expr.read(f"$(near(v, {k}))").evaluate({"v": value}.__getitem__) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("$(in + act)", 7, "'relu' is no number"),
        ("$(in // (w - 16))", 2, "24 // 0 has no value"),
        ("$(ks[2])", 2, "there is no item 2 in a list of 2"),
        ("$(ks[layer - 2])", 2, "there is no item -1"),
        ("$(ks[true])", 2, "there is no item true"),
        ("$(in[0])", 2, "24 is no list"),
        ("$(op + 1)", 2, "a mapping is no number"),
        ("$(near(in, 0))", 2, r"near\(24, 0\) has no value"),
        ("$(up(in, 1.5))", 2, r"up\(24, 1.5\) has no value"),
        (f"$({' * '.join(['999999999999999'] * 9)})", 2, "too large"),
        ("$(floor(1e99 * 1e99 * 1e99 * 1e99))", 2, "has no value"),
    ],
)
def test_what_cannot_be_computed_is_pointed_at(text: str, column: int, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as e:
        Expr.read(text).evaluate(NAMES.__getitem__)
    assert e.value.column == column


def test_equal_expressions_are_equal_however_they_are_written() -> None:
    assert Expr.read("$(4*in + (w))", ("a",)) == Expr.read("$( (4 * in) + w )", ("b",))
    assert hash(Expr.read("$(4*in)")) == hash(Expr.read("$(4 * in)"))
    texts = [
        "in + w",
        "in - w",
        "in + 1",
        "in + 1.0",
        "in == true",
        "in == 1",
        "in == '1'",
        "in == none",
        "-in",
        "w + in",
    ]
    texts += ["in < w < 4", "in < w and w < 4", "not in", "in - w - 4", "in - (w - 4)", "in if w else 4", "ks[in]"]
    assert len({Expr.read(f"$({text})") for text in texts}) == len(texts)


@pytest.mark.parametrize("text", ["$((4 * in) + w)", "$(-in < 'a' < ks[0])", "$((a if b else c) if d else min(e, 2))"])
def test_the_key_of_an_expression_reads_as_the_same_expression(text: str) -> None:
    assert Expr.read(str(Expr.read(text))) == Expr.read(text)


# --- early


def test_expressions_stand_for_widths_depths_and_parameters() -> None:
    found = plan(blocks__dw__0__kernel_size="$(kernels[0] + w // 8)", num_classes="$(w)", input__size="$(w * 4)")
    assert [(stage.dim, len(stage.layers)) for stage in found.stages] == [(16, 1), (32, 4)]
    assert params(found, 0) == [{"kernel_size": 5}]
    assert (found.num_classes, found.input.size) == (16, [64, 64])


def test_what_is_known_when_the_spec_is_read_takes_part_in_the_hash() -> None:
    written = spec(let__double=32, stages__1__depth=4)
    assert compile_spec(spec()).hash == compile_spec(written).hash


def test_names_of_a_place() -> None:
    changes = {"blocks__dw__0__kernel_size": "$(kernels[layer] if stage == 1 else depth + 2)"}
    found = plan(**changes, head={"op": "classifier", "act": "$('gelu' if classes == 1000 else 'relu')"})
    assert params(found, 0) == [{"kernel_size": 3}]
    assert params(found, 1) == [{"kernel_size": k} for k in (3, 5, 7, 9)]
    assert found.head.spec.params == {"act": "gelu"}
    assert len(compile_spec(spec(**changes)).plan.stages[1].layers) == 4


def test_a_let_may_speak_of_the_layer_that_uses_it() -> None:
    found = plan(let__k="$(kernels[layer])", blocks__dw__0__kernel_size="$k")
    assert params(found, 1) == [{"kernel_size": k} for k in (3, 5, 7, 9)]


def test_layers_that_do_not_ask_where_they_are_share_their_branches() -> None:
    layers = plan(blocks__dw__0__kernel_size="$(3 + 2 * stage)").stages[1].layers
    assert len({id(branches) for _, branches in layers}) == 1
    layers = plan(blocks__dw__0__kernel_size="$(3 if layer < 2 else 5)").stages[1].layers
    assert len({id(branches) for _, branches in layers}) == 4


def test_a_let_wins_over_the_place() -> None:
    assert params(plan(let__depth=7, blocks__dw__0__kernel_size="$depth"), 1) == [{"kernel_size": 7}] * 4
    assert params(plan(let__in=7, blocks__dw__0__kernel_size="$(in)"), 1) == [{"kernel_size": 7}] * 4
    own = plan(let__layer=7, stages__1__let={"layer": 3}, blocks__dw__0__kernel_size="$layer")
    assert (params(own, 0), params(own, 1)) == ([{"kernel_size": 7}], [{"kernel_size": 3}] * 4)


def test_only_what_counts_is_looked_up() -> None:
    asked: list[str] = []
    space = spec(let__a={"$int": [1, 2]}, let__b={"$int": [3, 4]}, stages__1__depth="$(a if w > 8 else b)")
    resolve(space, ask=lambda hole: asked.append(hole.name) or hole.low)
    assert asked == ["let.a"]


def test_a_hole_in_an_expression_is_one_hole() -> None:
    space = spec(let__w={"$int": [8, 32, 8]})
    assert list(holes(space)) == ["let.w"]
    asked: list[str] = []
    found = resolve(space, ask=lambda hole: asked.append(hole.name) or 24)
    assert (asked, [stage.dim for stage in found.stages]) == (["let.w"], [24, 48])
    filled = fill(space, {"let.w": 24})
    assert [stage.dim for stage in resolve(filled).stages] == [24, 48]


def test_a_choice_may_hold_expressions() -> None:
    space = spec(stages__1__dim={"$choice": [32, "$(3 * w)"]})
    assert [stage.dim for stage in resolve(space, ask=lambda hole: hole.labels[1]).stages] == [16, 48]
    assert resolve(fill(space, {"stages.1.dim": "$(3 * w)"})).stages[1].dim == 48


def test_a_computed_pattern_keeps_every_block() -> None:
    changes = {"let__deep": {"$choice": [True, False]}, "blocks__other": [{"op": "mlp"}, {"op": "dwconv"}]}
    space = spec(**changes, stages__1__layers="$('dw other*' if deep else 'dw*')")
    names = [name for name, _ in resolve(fill(space, {"let.deep": True})).stages[1].layers]
    assert names == ["dw", "other", "other", "other"]


def test_a_spec_with_expressions_survives_being_written() -> None:
    written = spec(blocks__dw__0__kernel_size="$(near(kernels[layer], 1))", let__t="$('a' if w > 1 else \"b\")")
    again = from_text(written.to_yaml())
    assert again.tree == written.tree
    assert compile_spec(again).hash == compile_spec(written).hash


# --- late


def values() -> Values:
    return Values(Report(spec().locs), None)


def resolved(value: str, **let: Any) -> Any:
    lifted = {name: Expr.read(v) if isinstance(v, str) and v.startswith("$(") else v for name, v in let.items()}
    place = {"layer": 3, "depth": 12}
    return values().deep(Expr.read(value), (), Scope(lifted, ("let",)).with_place(place), Origins())


def test_late_names_stay_and_early_ones_do_not() -> None:
    found = resolved("$(near(2 * w * in + layer, 8))", w=3)
    assert found == Expr.read("$(near(6 * in + 3, 8))")
    assert found.names() == {"in"}
    assert found.evaluate({"in": 10}.__getitem__) == 64
    assert resolved("$(2 * w * in)", w=3) != resolved("$(2 * w * in)", w=4)


def test_late_names_reach_through_let() -> None:
    assert resolved("$(mid // 2)", mid="$(4 * in)") == Expr.read("$(4 * in // 2)")
    assert resolved("$(mid if se else out)", mid="$(4 * in)", se=False) == Expr.of_name("out")
    assert resolved("$(1 if se and in else 2)", se=False) == 2


def test_late_values_may_be_whole_ops() -> None:
    found = resolved("$(big if in > 64 else none)", big={"op": "conv", "groups": [1, 2]})
    assert found.names() == {"in"}
    assert found.evaluate({"in": 65}.__getitem__) == {"op": "conv", "groups": [1, 2]}
    assert found.evaluate({"in": 64}.__getitem__) == "none"
    hash(found)


def test_names_that_double_each_other_end() -> None:
    let = {"a0": "$(in + in)", **{f"a{i}": f"$(a{i - 1} + a{i - 1})" for i in range(1, 60)}}
    message = refused(let={**TREE["let"], **let}, blocks__dw__0__kernel_size="$a59")
    assert "written out, this has more than 500 parts" in message


def test_long_chains_of_names_end() -> None:
    inner = "(" * 20 + "a{} + 1" + ")" * 20
    let = {"a0": 1, **{f"a{i}": f"$({inner.format(i - 1)})" for i in range(1, 90)}}
    assert plan(let={**TREE["let"], **let, "w": 16}, num_classes="$a60").num_classes == 61
    cycle = refused(let={**TREE["let"], "a": "$(b + 1)", "b": "$(2 * a)"}, num_classes="$a")
    assert "$a refers to itself: $a -> $b -> $a" in cycle


# --- what is wrong

NEAR = '"$(near(w, 8))"'
ERRORS = [
    ("  w: $(2 * )", "s:5:10: error[expression]: a value is missing at the end (let.w)", "as in $(2 * w)"),
    ("  w: $(2 * (3 + 4)", "s:5:6: error[expression]: '$(' is never closed (let.w)", "close it with ')'"),
    ("  w: $(2) + $(3)", "s:5:10: error[expression]: text after the expression (let.w)", "the whole value"),
    (
        "  w: $(2 * v)",
        "s:5:12: error[unknown-name]: no let gives $v (let.w)",
        "names: classes, depth, height, in",
    ),
    ("  w: $(2 * stages.0.dim)", "s:5:12: error[expression]: 'stages[0].dim' is a path", "as in $(2 * w)"),
    ("  w: $(in * 2)", "s:9:16: error[late]: $(in * 2) depends on $in, which only the maps give", "let.w: s:5:6"),
    ("  w: $(layer + 1)", "s:5:6: error[unknown-name]: $layer has no value here", "layer is known inside blocks"),
    ("  w: $('a' * 2)", "s:5:8: error[expression]: 'a' is no number, which * needs", "M == 'all'"),
    ("  w: $(9 / 2)", "error[value]: this should be a whole number, not 4.5 (stages[0].dim)", "// leaves out the rest"),
    ("  w: $(-2)", "error[value]: this should be at least 1, not -2 (stages[0].dim)", "let.w: s:5:6"),
    ("  w: {a: $(near(w, 8)), b: $(up(w, 8))}", "s:5:10: error[expression]: inside { } and [ ]", f"write {NEAR}"),
    ("  w: [1, $(near(w, 8))]", "s:5:10: error[expression]: inside { } and [ ]", f"write {NEAR}"),
    ("  w: {a: $(k[layer])}", "s:5:10: error[expression]: inside { } and [ ]", 'write "$(k[layer])"'),
    ("  w: [$(k[layer])]", "s:5:7: error[expression]: inside { } and [ ]", 'write "$(k[layer])"'),
]
TEXT = """blockforge: 1
name: tiny
input: {size: 32}
let:
  w: 16
blocks:
  dw: [{op: dwconv, norm: none}]
stem: conv_stem
stages: [{dim: $w, depth: 1, layers: dw}]
head: classifier
"""


@pytest.mark.parametrize(("line", "message", "more"), ERRORS)
def test_a_mistake_is_shown_where_it_is(line: str, message: str, more: str, parser: type) -> None:
    with pytest.raises(SpecError) as e:
        compile_spec(from_text(TEXT.replace("  w: 16", line), "s"))
    assert message in str(e.value)
    assert more in str(e.value)
    assert len(e.value.diagnostics) == 1 or "stages" in message


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("stages__1__dim", "$(2 * in)", "stages[1].dim"),
        ("stages__1__depth", "$height", "stages[1].depth"),
        ("stages__1__window", "$(width // 2)", "stages[1].window"),
        ("stages__1__layers", "$('dw' if in > 2 else 'dw*')", "stages[1].layers"),
        ("input__size", ["$in", 32], "input.size[0]"),
        ("blocks__dw__0__op", "$('dwconv' if in > 3 else 'mlp')", "blocks.dw[0].op"),
        ("blocks__dw__0__drop_path", "$(in > 3)", "blocks.dw[0].drop_path"),
        ("head", {"op": "classifier", "dim": "$in"}, "head.dim"),
    ],
)
def test_late_values_are_refused_where_an_early_one_is_needed(path: str, value: Any, place: str) -> None:
    message = refused(**{path: value})
    assert "which only the maps give" in message
    assert f"({place})" in message


def test_a_mistake_in_a_layer_is_told_once() -> None:
    assert refused(blocks__dw__0__kernel_size="$(kernels[layer + 1])").count("error[") == 1


# --- hostile

_PIECES = [*"()[]{}$,.'\"+-*/%<>=!?#:&|\\ \n\t\0", "//", "==", "$(", "if ", " else ", "not ", "and", "or", "none"]
_PIECES += ["near(", "up(", "min(", "floor(", "round(", "in", "layer", "depth", "stage", "w", "kernels[", "1e99", "0"]
_PIECES += ["true", "9" * 15]
_SEEDS = ["$(2 * w)", "$(kernels[layer])", "$(near(w * in, 8) if w > 8 else none)", "$w", "$(min(w, 3) // (stage + 1))"]


def mutated(rng: random.Random) -> str:
    text = rng.choice(_SEEDS)
    for _ in range(rng.randrange(1, 5)):
        at, length = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 3))
        text = text[:at] + rng.choice(_PIECES) + text[at + length :]
    return text


def check_mutations(count: int, seed: int) -> None:
    rng = random.Random(seed)
    paths = ["let__w", "stages__1__dim", "stages__1__depth", "blocks__dw__0__kernel_size", "stem", "stages__1__layers"]
    for _ in range(count):
        changed = tree(**{path: mutated(rng) for path in rng.sample(paths, 2)})
        try:
            found = resolve(load(changed))
        except SpecError:
            continue
        assert all(stage.dim >= 1 for stage in found.stages)


def test_any_text_is_a_value_or_refused() -> None:
    check_mutations(1500, seed=0)


def test_any_text_in_yaml_is_a_value_or_refused(parser: type) -> None:
    rng = random.Random(1)
    for _ in range(300):
        try:
            bf.load(from_text(TEXT.replace("  w: 16", f"  w: {{a: {mutated(rng)}, b: [{mutated(rng)}]}}")))
        except SpecError:
            continue
