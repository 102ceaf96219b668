"""Narrow relations: values are solved for where equalities determine them; only what is proven is called wrong."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.cli import main
from blockforge.search import list_spaces, load_space, search
from blockforge.search.space.statistics import sample_costs
from blockforge.spec import Spec, from_text, holes, load
from blockforge.spec.expressions.bounds import possible
from blockforge.spec.expressions.equation import equalities, solve
from blockforge.spec.expressions.evaluation import evaluate
from blockforge.spec.expressions.parser import parse
from blockforge.spec.expressions.tree import names
from blockforge.spec.relations.backtracking import Backtracking
from blockforge.spec.relations.repair import relations_of
from blockforge.spec.relations.require import violations
from blockforge.units import Budget

TEXT = """
blockforge: 1
name: narrow
input: {size: 32}
num_classes: 10
defaults: {norm: layer_norm}
let: {heads: {$int: [1, 16]}, head_dim: {$int: [4, 64, 2]}}
require: [@]
blocks:
  dw: [{op: dwconv}, {op: mlp, mlp_ratio: 2}]
  attn: [{op: attention, num_heads: $heads, head_dim: $head_dim}, {op: mlp, mlp_ratio: 2}]
stem: {op: conv_stem}
downsample: {op: conv_downsample}
stages:
  - {dim: {$int: [8, 256, 2]}, depth: {$int: [1, 30]}, layers: dw}
  - {dim: {$int: [8, 512, 2]}, depth: {$int: [1, 30]}, layers: {$choice: [dw, attn]}}
head: {op: classifier}
"""
A, B, C, D = "stages.0.dim", "stages.1.dim", "stages.0.depth", "stages.1.depth"
RIGHT = [
    f"{B} == 2 * {A}", f"{C} + {D} == 24", f"heads * head_dim == {B}", f"{A} == {B} / 3", f"{C} * {D} == 36",
    f"{A} % 14 == 0 and {B} % 22 == 0", f"{A} // 16 == {C}", f"64 <= {A} * {C} <= 66", f"{B} - {A} == {C} * 8",
    f"2 * ({A} + {C}) == {B} and {C} == {D}", f"-{A} + {B} == 10", f"{C} == {D} == 7", f"{A} * {D} == {B} * {C}",
]  # fmt: skip


def space(*relations: str) -> Spec:
    listed = ", ".join(f'"{r}"' for r in relations)
    return load(from_text(TEXT.replace("@", listed), "narrow.yaml"))


@pytest.mark.parametrize("relation", RIGHT)
def test_every_draw_of_a_right_space_keeps_its_relations(relation: str) -> None:
    own = space(relation)
    found = sample_costs(own, 25, 0, Budget())
    assert found.valid >= 23
    assert found.mended


@pytest.mark.parametrize("relation", [RIGHT[0], RIGHT[1], RIGHT[2], RIGHT[4]])
def test_a_search_sees_what_it_evaluates(relation: str) -> None:
    own = space(relation)
    found = search(own, trials=12, objective="depth", seed=1)
    assert found.evaluated == 12
    for trial in found.ranked:
        assert not violations(own.lifted, trial.holes)
        assert bf.compile(found.spec(trial)).hash == trial.hash
    again = search(own, trials=12, objective="depth", seed=1)
    assert [t.holes for t in again.trials] == [t.holes for t in found.trials]


@pytest.mark.parametrize("relation", RIGHT)
def test_the_check_finds_a_right_space_right(relation: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "narrow.yaml").write_text(TEXT.replace("@", f'"{relation}"'))
    assert main(["check", str(tmp_path / "narrow.yaml")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("relations", [(f"{C} + {D} == 240",), (f"{A} == 2 * {B}", f"{B} == 2 * {A}")])
def test_only_a_proof_calls_a_space_wrong(relations: tuple[str, ...], tmp_path: Path, capsys) -> None:
    (tmp_path / "narrow.yaml").write_text(TEXT.replace("@", ", ".join(f'"{r}"' for r in relations)))
    file = str(tmp_path / "narrow.yaml")
    for command in (["check", file], ["space", file], ["search", file, "--trials", "2", "--out", str(tmp_path / "r")]):
        assert main(command) == 1
        err = capsys.readouterr().err
        if relations_of(space(*relations)).verdict() == "impossible":
            assert "no values of the holes" in err
        else:
            assert "proves nothing" in err or "does not prove" in err


def test_what_stays_and_what_changes() -> None:
    own = relations_of(space(f"heads * head_dim == {B}"))
    answers = {"let.heads": 3, "let.head_dim": 10, A: 8, B: 96, C: 1, D: 1, "stages.1.layers": "attn"}
    for fixed in ({"let.heads": 3}, {B: 96}, {"let.head_dim": 10}):
        found = own.mend(answers, fixed)
        assert found["let.heads"] * found["let.head_dim"] == found[B]
        assert fixed.items() <= found.items()
        assert all(found[n] == answers[n] for n in (A, C, D))
    without = {n: v for n, v in answers.items() if not n.startswith("let.")}  # no attention: the relation binds nothing
    assert own.mend(without) == without
    assert own.mend(answers | {"let.heads": 16, B: 8}, {"let.heads": 16, B: 8}) is None


def test_wide_relations_are_left_to_the_sampler() -> None:
    assert not relations_of(space(f"{A} <= {B}")).narrow
    assert not relations_of(space(f"{B} % heads == 0")).narrow
    assert not [name for name in list_spaces() if relations_of(load_space(name)).narrow]
    assert relations_of(space(f"{A} == {B}")).narrow
    assert relations_of(space(f"64 <= {A} * {C} <= 66")).narrow
    assert set(holes(space())) >= {A, B, C, D}


@pytest.mark.parametrize(
    ("text", "value"),
    [("x + 3 == 7", 4), ("7 == 3 - x", -4), ("2 * x == 7", Fraction(7, 2)), ("12 / x == 3", 4), ("x / 4 == 3", 12),
     ("-(x - 1) * 2 == 8", -3), ("x == 'a'", "a"), ("y * (x + 1) == 30", 9)],
)  # fmt: skip
def test_an_equality_is_solved(text: str, value: object) -> None:
    node = parse(text)
    (x,) = (n for n in names(node) if n.value == ("x",))
    found = solve(*node.parts, x, {("y",): 3}.__getitem__)
    assert found == (float(value) if isinstance(value, Fraction) else value,) * 2


@pytest.mark.parametrize("text", [
    "x // 8 == 5", "100 // x == 7", "up(x, 8) == 24", "near(x, 8) == 40", "near(x, 8) == 8", "near(x / 3, 8) == 16",
    "floor(x / 7) == 2", "ceil(x / 7) == 2", "round(x / 7) == 2", "40 == (x * y if y == 3 else x)",
    "(x // 4 + 2) * 2 == 10", "9 == (3 if y == 4 else x // 2)", "-(x // 8) == -5",
])  # fmt: skip
def test_an_equality_leaves_no_other_values_than_those_of_its_range(text: str) -> None:
    node, given = parse(text), {("y",): 3}
    ((left, right),) = equalities(node, given.__getitem__)
    (x,) = (n for side in (left, right) for n in names(side) if n.value == ("x",))
    low, high = solve(left, right, x, given.__getitem__)
    exact = [v for v in range(1, 400) if evaluate(node, {("x",): v, ("y",): 3}.__getitem__)]
    assert [v for v in exact if not low <= v <= high] == []
    assert sum(low <= v <= high for v in range(1, 400)) <= 4 * max(8, len(exact))


@pytest.mark.parametrize(("relation", "answers", "wanted"), [
    (f"heads == {B} // 32", {B: 480, "let.heads": 3}, {"let.heads": 3}),
    (f"heads == {B} // 32", {B: 480, "let.heads": 3}, {B: 480}),
    (f"near({A} * 1.5, 16) == {B}", {A: 100, B: 200}, {B: 144}),
    (f"up({A}, 32) == {B}", {A: 100, B: 256}, {B: 256}),
    (f"{B} == (2 * {A} if {C} > 10 else 4 * {A})", {A: 100, B: 64, C: 3}, {A: 100}),
    (f"{C} > 10 or {B} == 2 * {A}", {A: 100, B: 64, C: 3}, {A: 100, C: 3}),
    (f"{B} == 2 * {A} if {C} > 10 else {B} == {A}", {A: 100, B: 64, C: 20}, {A: 100, C: 20}),
])  # fmt: skip
def test_values_that_a_relation_determines_are_solved_for(
    relation: str, answers: dict[str, int], wanted: dict[str, int]
) -> None:
    own = space(relation)
    others = {"let.heads": 3, "let.head_dim": 10, A: 8, B: 96, C: 1, D: 1, "stages.1.layers": "attn"}
    whole, relations = others | answers | wanted, relations_of(own)
    found = relations.mend(whole, wanted)
    assert found is not None
    assert not violations(own.lifted, found)
    order = [n for n in relations.constraints.holes if relations.constraints.on(n) and n not in wanted]
    kept = {n: v for n, v in whole.items() if n not in order}
    search = Backtracking(relations.constraints, kept, whole, random.Random(0), 60)
    assert search.run(order) is not None  # a search for one of hundreds of values would need more steps


@pytest.mark.parametrize(
    ("text", "may"),
    [("x + y == 9", True), ("x + y == 30", False), ("x * y < 0", False), ("x / y == 5", True), ("x - y > 9", False),
     ("x % y == 50", False), ("x // y == 3", True), ("x + y == 30 or x == 1", True), ("not x == 1", True),
     ("max(x, y) > 10", False), ("min(x, y) > 8", False), ("abs(x - y) > 10", False), ("abs(x + 5) < 5", False),
     ("x * (y / x) == 8", True), ("x * (y / x) > 10", True), ("-(y / x) * x < 0", True),
     ("(y / x) / (y / x) == 1", True), ("1e99 * 1e99 * 1e99 * 1e99 * x < 1", True)],
)  # fmt: skip
def test_bounds(text: str, may: bool) -> None:
    values = {("x",): [0, 10], ("y",): [1, 8]}
    assert possible(parse(text), values.__getitem__) is may
