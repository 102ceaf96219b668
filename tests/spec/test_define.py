"""`define`: ops with names, and what else may stand in an op's place."""

from __future__ import annotations

import contextlib
import copy
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blockforge.errors import Report, SpecError, format_path
from blockforge.spec import Hole, Spec, fill, from_text, holes, load, resolve
from blockforge.spec.values import Ref
from blockforge.spec.yaml.loader import load_value

Tiny = Callable[..., str]
STAR = "{params: {ratio: 4, act: relu}, body: [{op: linear, dim: $(ratio * in)}, $act, {op: linear, dim: $out}]}"


@pytest.fixture
def defining(tiny: Tiny) -> Callable[..., Spec]:
    """`defining("{f: ...}", op="f")`: the tiny spec with definitions, and an op that stands in a branch."""

    def make(define: str, op: str = "f", more: str = "") -> Spec:
        return from_text(tiny(("{op: mlp, mlp_ratio: 2}", op)) + f"define: {define}\n{more}", "net.yaml")

    return make


def first(hole: Hole) -> Any:
    return hole.labels[0] if hole.labels else hole.low


# --- ops of any form


@pytest.mark.parametrize(
    ("written", "op"),
    [
        ("[batch_norm, mlp]", ["batch_norm", "mlp"]),
        ("{op: [batch_norm, {op: mlp}], norm: none}", ["batch_norm", {"op": "mlp"}]),
        ("{op: {op: parallel, of: [a, b]}, skip: false, dim: 3, when: true}", {"op": "parallel", "of": ["a", "b"]}),
    ],
)
def test_an_op_is_a_name_a_list_or_a_mapping(defining: Callable[..., Spec], written: str, op: Any) -> None:
    branch = resolve(defining("{}", written)).stages[1].layers[1][1][1]
    assert branch.op.spec.op == op


def test_late_values_stand_inside_ops(defining: Callable[..., Spec]) -> None:
    spec = defining("{}", "{op: [{op: linear, dim: $(heads * in)}], dim: $out, when: $(in > 3)}")
    op = resolve(spec).stages[1].layers[1][1][1].op.spec
    assert [str(op.op[0]["dim"]), str(op.dim), str(op.when)] == ["$(4 * in)", "$(out)", "$(in > 3)"]


@pytest.mark.parametrize(
    ("op", "error"),
    [
        ("[mlp, 3]", "this should be a block: a name, {op: name} with its parameters, or a list of blocks, not 3"),
        ("[mlp, [x, {op: [mlp, ['-']]}]]", "'-' is not a name"),
        ("{op: [mlp], mlp_ratio: 2}", "there is no key 'mlp_ratio' here"),
        ("{op: [{op: [mlp], eps: 2}]}", "there is no key 'eps' here"),
        ("[mlp, []]", "this list should have at least 1 item, not 0"),
        ("[{mlp_ratio: 2}]", "the key 'op' is missing"),
        ("{op: {op: mlp, act: {op: [relu], eps: 3}}}", "there is no key 'eps' here"),
        ("{op: a.b.c}", "'a.b.c' is not a name"),
    ],
)
def test_a_malformed_op_is_shown_where_it_is(defining: Callable[..., Spec], op: str, error: str) -> None:
    with pytest.raises(SpecError, match="error") as caught:
        defining("{}", op)
    (found,) = caught.value.diagnostics
    assert error in found.message
    assert found.loc is not None
    assert found.loc.line == 12


def test_a_list_has_the_places_of_its_items(defining: Callable[..., Spec]) -> None:
    locs = defining("{}", "[mlp, {op: conv_mlp, mlp_ratio: 3}]").locs
    assert locs.value(("blocks", "msa", 1, "op", 1, "mlp_ratio")) == locs.table[("blocks", "msa", 1, 1, "mlp_ratio")][1]


# --- definitions


def test_a_definition_has_parameters_and_a_body(defining: Callable[..., Spec]) -> None:
    glossary = resolve(defining(f"{{star: {STAR}, ln: layer_norm}}", "star")).glossary
    star, ln = glossary.find("star"), glossary.find("ln")
    assert star is not None
    assert ln is not None
    assert star.params == {"ratio": 4, "act": "relu"}
    assert star.body[1] == Ref("act")
    assert [star.path, star.body_path] == [("define", "star"), ("define", "star", "body")]
    assert [ln.params, ln.body, ln.body_path] == [{}, "layer_norm", ("define", "ln")]
    assert glossary.find("other") is None


def test_definitions_survive_text_and_pickles(defining: Callable[..., Spec]) -> None:
    spec = defining(f"{{star: {STAR}}}", "star")
    assert from_text(spec.to_yaml()).tree == spec.tree
    assert resolve(pickle.loads(pickle.dumps(spec))).glossary == resolve(spec).glossary


@pytest.mark.parametrize(
    ("define", "error"),
    [
        ("{f: 3}", "this should be a block"),
        ("{f: {body: mlp, more: 1}}", "there is no key 'more' here"),
        ("{f: {params: {x: 1}}}", "the key 'body' is missing"),
        ("{f: {params: [x], body: mlp}}", "this should be a mapping, not a list"),
        ("{f: {params: {a-b: 1}, body: mlp}}", "'a-b' cannot be a name here"),
        ("{f.g: mlp}", "'f.g' cannot be a name here"),
        ("[mlp]", "this should be a mapping, not a list"),
    ],
)
def test_malformed_definitions_are_refused(defining: Callable[..., Spec], define: str, error: str) -> None:
    with pytest.raises(SpecError, match=error):
        defining(define)


# --- names in definitions


@pytest.mark.parametrize(
    ("define", "op", "error", "hint"),
    [
        ("{f: {params: {ratio: 2}, body: [{op: x, k: $ratoi}]}}", "mlp", r"'f' has no parameter \$ratoi", "'ratio'"),
        ("{f: [{op: x, k: $(2 * inn)}]}", "mlp", r"'f' has no parameter \$inn", "did you mean 'in'"),
        ("{f: [{op: x, k: $heads}]}", "mlp", r"no parameter \$heads", "do not see what let gives: make it a parameter"),
        ("{f: {params: {a: $b, b: 1}, body: x}}", "mlp", r"no parameter \$b", "may name the parameters before it"),
        ("{f: {params: {dim: 1}, body: x}}", "mlp", "a parameter cannot be named 'dim'", "another name"),
        ("{f: [g], g: {op: x, of: [y, f]}}", "mlp", "a definition leads back to itself: (f -> g|g -> f)", "leave out"),
        ("{f: [{op: f}]}", "mlp", "a definition leads back to itself: f -> f", "leave out"),
        ("{f: {params: {k: 1}, body: x}, g: [{op: f, kk: 1}]}", "mlp", "'f' has no parameter 'kk'", "'k'"),
        ("{f: {params: {k: 1}, body: x}}", "{op: f, kk: 1}", "'f' has no parameter 'kk'", "'k'"),
        ("{f: {params: {k: required}, body: x}, g: [f]}", "mlp", "definition 'f' needs 'k'", "{op: f, k: ...}"),
        ("{f: {params: {k: required}, body: x}}", "f", "definition 'f' needs 'k'", "{op: f, k: ...}"),
    ],
)
def test_wrong_names_are_told(defining: Callable[..., Spec], define: str, op: str, error: str, hint: str) -> None:
    with pytest.raises(SpecError, match=error) as caught:
        defining(define, op)
    (found,) = caught.value.diagnostics
    assert hint in (found.hint or "")
    assert found.loc is not None
    assert found.loc.line == (12 if op != "mlp" else 19)


@pytest.mark.parametrize(
    "define",
    [
        "{f: {params: {a: required, b: $a, in: 3}, body: [{op: x, k: $b, d: '$(min(in, out, height, width))'}]}}",
        "{f: [{op: x, k: $(layer + depth + stage + classes), rate: $drop_path}]}",
        "{same: {op: conv, padding: same}}",
        "{f: {params: {k: required}, body: x}, g: {op: f, k: 2, dim: 3, when: $(in > 3)}}",
        "{f: {op: graph, of: {a: {from: input, op: g, join: sum}, b: {from: {from: a, op: {op: g}}, op: [g]}}}, g: m}",
        "{f: {params: {act: relu}, body: [$act, {op: $act}]}}",
        "{f: {op: graph, of: {g: {from: input, op: x}, h: {from: [g, input]}}}, g: {params: {k: required}, body: x}}",
    ],
)
def test_what_definitions_may_say(defining: Callable[..., Spec], define: str) -> None:
    assert resolve(defining(define, "mlp")).glossary.names()


def test_branches_keep_their_keys_beside_a_call(defining: Callable[..., Spec]) -> None:
    op = "{op: f, k: 2, norm: none, scale: 1e-5, skip: true, post_act: relu, drop_path: false, dim: 3, when: true}"
    branch = resolve(defining("{f: {params: {k: required}, body: x}}", op)).stages[1].layers[1][1][1]
    assert branch.op.spec.params == {"k": 2, "dim": 3, "when": True}


def test_names_that_hide_others_are_warned_of(defining: Callable[..., Spec]) -> None:
    define = "{f: {params: {norm: none, depth: 3}, body: [{op: x, k: $depth}]}}"
    for op, expected in (("{op: f, norm: none}", ["blocks.msa[1].norm"]), ("{op: [{op: f, norm: none}]}", [])):
        spec = defining(define, op)
        report = Report(spec.locs)
        resolve(spec, report=report)
        assert [format_path(w.path) for w in report.warnings] == ["define.f.params.depth", *expected]


# --- holes in definitions


def test_only_holes_of_definitions_in_use_are_asked_for(defining: Callable[..., Spec]) -> None:
    define = "{f: [g, {op: x, k: {$choice: [3, 5]}}], g: {op: y, z: {$choice: [h, i]}}, h: {op: y, k: {$int: [1, 3]}}, "
    spec = defining(define + "i: {op: y, k: {$int: [4, 6]}}, other: {op: y, k: {$int: [7, 9]}}}", "{op: f, norm: none}")
    plan = resolve(spec, first)
    assert plan.answers == {"define.f.1.k": 3, "define.g.z": "h", "define.h.k": 1}
    assert plan.glossary.define["f"] == ["g", {"op": "x", "k": 3}]
    assert len(holes(spec)) == 5
    with pytest.raises(SpecError, match=r"'define\.f\.1\.k' is a hole"):
        resolve(spec)


def test_a_hole_in_a_definition_is_set_by_its_path(defining: Callable[..., Spec]) -> None:
    spec = defining("{f: {params: {k: {$choice: [3, 5]}}, body: [{op: x, k: $k}]}}", "{op: f}")
    assert resolve(load(spec, ["define.f.params.k=5"])).glossary.define["f"]["params"] == {"k": 5}


def test_a_filled_space_keeps_the_definitions_that_it_uses(defining: Callable[..., Spec]) -> None:
    define = "{f: [m.g, {op: x, k: {$choice: [3, 5]}}], n: {op: x, k: {$choice: [1, 2]}}}"
    used = "{define: {g: [h], i: mlp}, use: [{define: {h: mlp}}], as: m}"
    more = f"use: [{{define: {{q: mlp}}}}, {used}, {{define: {{q: mlp}}, as: n}}]\n"
    spec = fill(defining(define, "{$choice: [f, mlp]}", more), {"define.f.1.k": 5})
    assert spec.tree["define"] == {"f": ["m.g", {"op": "x", "k": 5}]}
    assert spec.tree["use"] == [{}, {"define": {"g": ["h"]}, "use": [{"define": {"h": "mlp"}}], "as": "m"}, {}]
    assert spec.locs.value(("use", 1, "define", "g")) != spec.locs.value(("use", 0))
    assert load(from_text(spec.to_yaml())).tree == spec.tree
    other = fill(defining(define, "{$choice: [f, mlp]}", more), {"blocks.msa.1": "mlp"})
    assert not {"define", "use"} & other.tree.keys()


# --- any text

FUZZED = """\
define:
  ln: {op: layer_norm, eps: 1e-6}
  f: {params: {k: {$choice: [3, 5]}, act: gelu, j: $k}, body: [{op: dwconv, kernel_size: $k}, $act, {op: ln}]}
  own: {params: {of: required}, body: {op: parallel, of: [$of, f, {op: {op: residual, of: ln}, dim: $(2 * out)}]}}
use: [{define: {star: {params: {ratio: 2}, body: [{op: x, dim: $(ratio * in)}, g]}}, use: [{define: {g: gelu}}], as: m}]
"""
PIECES = """
[none, $heads, $(in), $x, [], {}, 3, 1e-6, true, f, ln, m.star, a.b.c, required, use, "", {op: f}, [[f]], {1: 2}, $act,
{op: [ln], dim: 3}, {$choice: [f, [ln]]}, {$int: [1, 3]}, {params: {a: 1}, body: $a}, {from: a, op: f}, [std], {p: std},
{define: {q: q}}, [{op: {op: {op: own, of: own}}}], {op: own, of: $(f if in > 3 else ln)}, {op: f, k: required}]
"""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a tree with each of its keys."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def mutate(tree: Any, rng: random.Random) -> None:
    """Replace, copy, drop or rename something."""
    found = list(places(tree))
    (holder, key), (other, from_) = rng.choice(found), rng.choice(found)
    kind = rng.randrange(4)
    if kind == 3 and isinstance(holder, dict):
        holder[rng.choice(("op", "dim", "when", "body", "params", "from", "use", "as", "define", "f"))] = holder.pop(
            key
        )
    elif kind == 2:
        del holder[key]
    else:
        pieces = load_value(" ".join(PIECES.split("\n")), "pieces").tree
        holder[key] = rng.choice(pieces) if kind else copy.deepcopy(other[from_])


@pytest.mark.parametrize("seed", range(4))
def test_mutated_definitions_load_or_raise_spec_error(tiny: Tiny, seed: int) -> None:
    rng = random.Random(seed)
    text = tiny(("{op: mlp, mlp_ratio: 2}", "[{op: m.star, ratio: 3}, f, {op: own, of: [ln]}]")) + FUZZED
    valid, loaded = from_text(text).tree, 0
    for _ in range(250):
        tree = copy.deepcopy(valid)
        for _ in range(rng.randint(1, 3)):
            mutate(tree, rng)
        with contextlib.suppress(SpecError):
            spec = load(tree)
            assert from_text(spec.to_yaml()).tree == spec.tree
            filled = fill(spec, {})
            assert from_text(filled.to_yaml()).tree == filled.tree
            resolve(spec, first)
            loaded += 1
    assert loaded > 25


def test_a_name_without_a_parameter_is_told_once_and_how_it_becomes_one(tiny: Tiny) -> None:
    """In the definition, and not once more in every call that gives it."""
    text = f"{tiny()}define: {{f: {{op: dwconv, kernel_size: $k}}, g: [{{op: f, k: 3}}, {{op: f, k: 5}}]}}\n"
    with pytest.raises(SpecError) as e:
        from_text(text)
    (only,) = e.value.diagnostics
    assert only.message == "definition 'f' has no parameter $k"
    assert only.hint is not None
    assert only.hint.endswith("one of its own is a parameter: {params: {k: required}, body: ...}")
