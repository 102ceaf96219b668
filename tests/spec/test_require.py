"""`require`: what relations mean, by how much they fail, and that they bind the compiler."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blockforge as bf
from blockforge.spec import Spec, fill
from blockforge.spec.expressions.evaluation import evaluate, excess
from blockforge.spec.expressions.parser import parse
from blockforge.spec.expressions.tree import AbsentError, ExpressionError, names
from blockforge.spec.relations.require import violations

VALUES: dict[Any, Any] = {
    ("a",): 4,
    ("b",): 6,
    ("M",): "all",
    ("on",): True,
    ("stages", 1, "dim"): 96,
    ("x",): 0.5,
    ("min",): 3,
    ("vast",): 10**60,
}

SPACE = {
    "blockforge": 1,
    "name": "tiny",
    "input": {"size": 32},
    "let": {"S": {"$int": [1, 4]}, "M": {"$choice": [1, 2, "all"]}},
    "require": ["M == 'all' or S <= M", "stages.0.dim < stages.1.dim", "stages.1.connect.stride >= 2"],
    "blocks": {"dw": [{"op": "dwconv", "norm": "none"}]},
    "stem": "conv_stem",
    "downsample": {"op": "conv_downsample"},
    "stages": [
        {"dim": {"$int": [8, 24, 8]}, "depth": 1, "layers": "dw"},
        {
            "dim": {"$int": [8, 24, 8]},
            "depth": "$S",
            "layers": "dw",
            "let": {"stride": {"$int": [1, 2]}},
            "connect": {
                "$choice": ["none", {"rule": "sparx", "stride": "$stride", "window": "$M", "aggregate": "sum"}]
            },
        },
    ],
    "head": "classifier",
}


def look_up(path: Any) -> Any:
    if path not in VALUES:
        raise AbsentError
    return VALUES[path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + b * 2", 16),
        ("(a + b) * 2", 20),
        ("b - a - 1", 1),
        ("b // a + b % a", 3),
        ("b / a", 1.5),
        ("--a - -b", 10),
        ("a < b <= 6", True),
        ("a < b < 6", False),
        ("a < b == 6", True),
        ("M == 'all'", True),
        ('M != "all"', False),
        ("M == none", False),
        ("on == true and not a == 5", True),
        ("not not on", True),
        ("a == 4 or missing > 1", True),
        ("a == 5 and M < 1", False),
        ("a == 5 or b == 6 and x < 1", True),
        ("stages.1.dim % 32 == 0", True),
        ("stages[1].dim == $a * 24", True),
        ("1e-1 < x < 1.5", True),
        ("'all'or$a", True),
        ("stages[1].dim<b or'all'==M", True),
        ("007 + 1", 8),
        ("min(a, b, 5) + max(a, b)", 10),
        ("abs (a - b) * 2", 4),
        ("max(-(a), (b))", 6),
        ("min < 4 and min(a, min) == 3", True),
        ("(a if on else b) + a", 8),
        ("a if not on else b if a == b else x", 0.5),
        ("missing if M == none else a", 4),
        ("floor(x) + ceil(x) + round(2.6)", 4),
        ("up(a + 1, 8) - up(-9, 8)", 16),
        ("near(b * 3, 8)", 24),
    ],
)
def test_expressions_mean_what_they_say(text: str, value: Any) -> None:
    assert evaluate(parse(text), look_up) == value


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("a <= b", 0),
        ("b <= a", 1 / 3),
        ("b < 6", 1e-6),
        ("a == 8", 0.5),
        ("a != 4", 1),
        ("M == 'none'", 1),
        ("not on", 1),
        ("b <= a and a >= 8", 0.5),
        ("b <= a or a >= 8", 1 / 3),
        ("4 < a < 2", 0.5),
        ("b < a < M", 1),
        ("1.5 > " + "*".join(["999999999999999"] * 30), 1),
    ],
)
def test_by_how_much_a_relation_fails(text: str, by: float) -> None:
    assert excess(parse(text), look_up) == pytest.approx(by)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a <", 2, "a value is missing at the end"),
        ("", 0, "a value is missing at the end"),
        ("a b", 2, "'b' has no place here"),
        ("(a", 0, r"'\(' is never closed"),
        ("a)", 1, r"'\)' has no place here"),
        ("a = 4", 2, "'=' has no place here"),
        ("a ** 2", 3, r"'\*' stands where a value should"),
        ("f(a)", 1, r"'\(' has no place here"),
        ("[a]", 0, r"'\[' stands where a value should"),
        ("'a", 0, "''' has no place here"),
        ("1_000", 0, "'1' has no place here"),
        ("9" * 16, 0, "'9' has no place here"),
        ("(" * 31 + "a" + ")" * 31, 30, "parentheses nest at most 30 deep"),
        ("a" * 501, 0, "at most 500 characters"),
        ("M < 3", 0, "'all' is no number, which < needs"),
        ("on + 1", 0, "true is no number"),
        ("a / (b - 6)", 0, "4 / 0 has no value"),
        ("*".join(["vast"] * 90) + " / 3", 0, "a huge number / 3 has no value"),
        ("a, b", 1, "',' has no place here"),
        ("max(a, b", 0, r"'max\(' is never closed"),
        ("1 + max(a)", 4, "max takes two values or more, not 1"),
        ("abs(a, b)", 0, "abs takes one value, not 2"),
        ("1 + max(a, M)", 11, "'all' is no number, which max needs"),
        ("a if b", 2, "'if' has no 'else'"),
        ("a if b if a else x else b", 2, "'if' has no 'else'"),
        ("max(a if b, x)", 6, "'if' has no 'else'"),
        ("a else b", 2, "'else' has no place here"),
        ("a[b", 1, r"'\[' is never closed"),
        ("a[(b])", 2, r"'\(' is never closed"),
        ("a]", 1, r"'\]' has no place here"),
        ("near(a)", 0, "near takes two values, not 1"),
        ("\0", 0, "has no place here"),
        ("\uff11 < a", 0, "has no place here"),
    ],
)
def test_what_has_no_meaning_is_pointed_at(text: str, column: int, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as e:
        evaluate(parse(text), look_up)
    assert e.value.column == column


@given(st.text(alphabet="ab01.()<>=!+-*/%'\" $[]noradt,mx", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = evaluate(parse(text), look_up)
        assert (excess(parse(text), look_up) == 0) == bool(found)
    except (ExpressionError, AbsentError):
        return


@pytest.mark.parametrize("text", ["-" * 499 + "a", "not " * 124 + "a", "+".join("a" * 250), "a" + "<1" * 249])
def test_long_texts_need_no_deep_stack(text: str) -> None:
    def at_depth(depth: int) -> Any:
        return at_depth(depth - 1) if depth else evaluate(parse(text), look_up)

    assert at_depth(400) == {"-": -4, "n": True, "a": 1000 if "+" in text else False}[text[0]]


def test_a_dot_leads_through_the_spec_and_never_into_python() -> None:
    assert [n.value for n in names(parse("a.__class__ == 1"))] == [("a", "__class__")]


def test_names_come_in_order() -> None:
    assert [n.value for n in names(parse("a < stages.1.dim and $b"))] == [
        ("a",), ("stages", 1, "dim"), ("b",),
    ]  # fmt: skip


@pytest.fixture
def space() -> Spec:
    return bf.load(SPACE)


def broken(space: Spec, **answers: Any) -> list[str]:
    known = {"let.S": 2, "let.M": 2, "stages.0.dim": 8, "stages.1.dim": 16, "stages.1.connect": "none"}
    return [v.text for v in violations(space.lifted, known | {k.replace("_", "."): v for k, v in answers.items()})]


def test_relations_of_a_space(space: Spec) -> None:
    assert broken(space) == []
    assert broken(space, let_S=3) == ["M == 'all' or S <= M"]
    assert broken(space, let_S=3, let_M="all") == []
    assert broken(space, stages_0_dim=24) == ["stages.0.dim < stages.1.dim"]


def test_what_a_candidate_has_not_binds_nothing(space: Spec) -> None:
    assert broken(space, stages_1_let_stride=1) == []
    assert broken(space, stages_1_connect="sparx", stages_1_let_stride=1) == ["stages.1.connect.stride >= 2"]
    assert broken(space, stages_1_connect="sparx", stages_1_let_stride=2) == []


def test_the_compiler_refuses_before_it_compiles(space: Spec) -> None:
    with pytest.raises(bf.SpecError, match=r"stages\.0\.dim < stages\.1\.dim does not hold: .* is 8, .* is 8"):
        bf.compile(space, ask=lambda hole: hole.labels[0] if hole.labels else hole.low)


def test_a_filled_space_is_an_ordinary_spec(space: Spec) -> None:
    filled = fill(space, {"stages.1.dim": 16})
    assert "require" not in filled.tree
    assert bf.compile(filled).params > 0


def test_relations_survive_yaml(space: Spec, tmp_path: Any) -> None:
    (tmp_path / "space.yaml").write_text(space.to_yaml())
    assert bf.load(tmp_path / "space.yaml").tree["require"] == SPACE["require"]


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(bf.SpecError, match=r"nothing is named 'stages\.0\.dims'(.*\n)*.*did you mean 'stages\.0\.dim'"):
        bf.load({**SPACE, "require": ["stages.0.dims > 3"]})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("S is 3", "write =="),
        ("S is not 3", "write !="),
        ("S <> 3", "write !="),
        ("S == 1 && S > 0", "write and"),
        ("S == 1 || S > 3", "write or"),
        ("!S", "write not"),
        ("S == 1 AND S > 0", "write and"),
        ("S ** 2 > 3", "x * x is a square; there is no sign for powers"),
        ("S => 3", "write >= or <="),
        ("S = 3", "== compares"),
        ("S === 3", "write =="),
        ("S ? 1 : 2", "write a if c else b"),
        ("S in [1, 2]", "compare with each, as in M == 1 or M == 2"),
        ("S not in (1, 2)", "compare with each, as in M == 1 or M == 2"),
        ("int(S / 2) > 1", "floor, ceil and round make whole numbers"),
        ("sqrt(S) > 1", "functions: min, max, abs, floor, ceil, round, up, near"),
        ("S > 1_000", "numbers are written as 12, 0.5 or 1e-3"),
        ("M == 'all", "quotes begin and end a text"),
    ],
)
def test_what_other_languages_write_is_told_in_this_one(text: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as e:
        parse(text)
    assert e.value.hint == hint


@pytest.mark.parametrize(("word", "here"), [("False", "false"), ("True", "true"), ("None", "none"), ("null", "none")])
def test_constants_of_other_languages_are_names_of_none(word: str, here: str) -> None:
    with pytest.raises(bf.SpecError, match=f"nothing is named '{word}'(?s:.*)hint: write {here}; "):
        bf.load({**SPACE, "require": [f"not {word}"]})
    with pytest.raises(bf.SpecError, match=f"no let gives \\${word}(?s:.*)hint: write {here}; "):
        bf.load({**SPACE, "let": {**SPACE["let"], "S": f"$(3 if {word} else 4)"}})  # type: ignore[dict-item]
