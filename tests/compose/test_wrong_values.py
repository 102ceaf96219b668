"""Values of the wrong kind and misspelt keys, in every place of a composed spec: what is expected there is said."""

from __future__ import annotations

import re
from typing import Any

import pytest
from networks import network

import blockforge as bf
from blockforge.blocks import registry
from blockforge.spec.forms import BRANCH_KEYS, OP_KEYS
from blockforge.spec.model import BranchSpec

PYDANTIC = re.compile(r"input should|field required|valid (tuple|list|string|integer)|\{\{|\bNone\b|\bTrue\b")
"""Words of the library that reads values, and of Python."""
ODD: tuple[Any, ...] = (8, True, "x", [4], {"a": 1}, None, -1, 1.5)


def said(spec: dict[str, Any]) -> str:
    try:
        bf.compile(spec)
    except bf.SpecError as e:
        return str(e)
    return ""


def inside(op: Any) -> dict[str, Any]:
    return network({"op": [op, {"op": "linear", "dim": "$out"}], "skip": False})


COMPOSITES = ("across", "chain", "graph", "parallel", "repeat", "residual", "split", "tiles")
PARTS = ("adaptive_pool", "avg_pool", "conv", "pad", "slice", "resize", "global_pool")


@pytest.mark.parametrize("op", [*COMPOSITES, *PARTS])
def test_odd_parameters_are_told_in_our_words(op: str) -> None:
    for key in (*registry.BLOCKS[op].model_fields, "dim", "when"):
        for value in ODD:
            text = said(inside({"op": op, key: value}))
            assert not PYDANTIC.search(text), f"{key}: {value!r}\n{text}"


@pytest.mark.parametrize("key", ["op", "norm", "scale", "drop_path", "post_act", "skip", "dim", "when"])
def test_odd_keys_of_a_branch_are_told_once(key: str) -> None:
    for value in ODD:
        text = said(network({"op": "mlp", key: value}))
        assert not PYDANTIC.search(text), f"{value!r}\n{text}"
        assert text.count("error[value]") <= 1, f"{value!r}\n{text}"


@pytest.mark.parametrize("key", ["name", "dim", "from", "join", "depth", "layers", "let", "connect", "downsample"])
def test_odd_keys_of_a_stage_are_told_in_our_words(key: str) -> None:
    for value in ODD:
        spec = network("mlp")
        spec["stages"][1][key] = value
        assert not PYDANTIC.search(text := said(spec)), f"{value!r}\n{text}"


STAGE = {"dim": 32, "depth": 1, "layers": "b"}
MEMBER = {"from": ["a", "input"]}


def graph(a: Any, z: Any = MEMBER) -> dict[str, Any]:
    return inside({"op": "graph", "of": {"a": a, "z": z}})


def second(**keys: Any) -> dict[str, Any]:
    return network("mlp", stages=[STAGE, {**STAGE, **keys}])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (inside({"op": "split", "sizes": 8, "of": ["identity"]}), r"this should be a list, not 8 .*sizes"),
        (inside({"op": "tiles", "size": [4]}), r"this list should have 2 items, not 1 .*size"),
        (inside({"op": "tiles", "shift": "x"}), r"this should be 'half' or a whole number, not 'x'"),
        (inside({"op": "conv", "padding": 1.5}), r"a whole number, a list, 'same' or 'tf', not 1\.5"),
        (inside({"op": "linear", "dim": None}), r"a width is a whole number .*not an empty value"),
        (inside({"op": "gelu", "when": 1}), r"when is true or false, not 1 .*op\[0\]\.when.*as in when"),
        (inside({"op": "parallel", "of": [True]}), r"true is no op .*of\[0\]"),
        (network({"op": "mlp", "scale": True}), r"a number, or a mapping as \{branch: 0\.1\}, not true"),
        (network({"op": "mlp", "skip": 8}), r"true, false or a block, not 8 \(blocks\.b\[0\]\.skip\)"),
        (network("mlp", stem=8), r"a block: a name, \{op: name\} .*, not 8 \(stem\)"),
        (network("mlp", drop_path="x"), r"a number, or a mapping as \{linear: 0\.1\}, not 'x'"),
        (network("mlp", skips="none"), r"this should be a list, not 'none': \[\] is an empty one \(skips\)"),
        (network("mlp", define="none"), r"a mapping, not 'none': \{\} is an empty one"),
        (graph({"frm": "input", "op": "linear"}), r"'linear' has no parameter 'frm' .*of\.a\.frm.*did you mean 'from'"),
        (graph("gelu", {"frm": ["a"], "join": "sum"}), r"no key 'frm' .*of\.z\.frm"),
        (graph("gelu", {"frm": ["a", "input"]}), r"no key 'frm'.*did you mean 'from'"),
        (graph({"from": 8, "op": "gelu"}), r"name of a member, not 8 .*of\.a\.from"),
        (graph({"from": None}), r"there is no value here .*of\.a\.from"),
        (inside({"op": "gelu", "whn": True}), r"no parameter 'whn'.*did you mean 'when'"),
        (second(frm=0), r"no key 'frm'.*did you mean 'from'"),
        (second(**{"from": {"frm": 0}}), r"'from' is missing .*did you mean it by 'frm'"),
        (second(**{"from": {"from": 0, "opp": "gelu"}}), r"did you mean 'op'\? keys here: from, op"),
        (network("mlp", head={"frm": 1, "op": "classifier"}), r"no parameter 'frm'.*did you mean 'from'"),
        (network("mlp", head={"opp": "classifier"}), r"'op' is missing .*did you mean it by 'opp'"),
        (network("mlp", define={"f": {"parms": {}, "body": "gelu"}}), r"no key 'parms'.*did you mean 'params'"),
        (inside(["classifier"]), r"'classifier' is a head, which stands under head or heads.*\[global_pool, "),
        (network("mlp", head=["layer_norm", "classifier"]), r"'classifier' is a head.*head\.op\[1\]"),
        (inside("dmca"), r"'dmca' joins maps.*\{op: parallel, join: dmca, of"),
    ],
)  # fmt: skip
def test_what_is_expected_is_said_where_it_is_written(spec: dict[str, Any], match: str) -> None:
    assert re.search(match, text := said(spec), re.DOTALL), text


@pytest.mark.parametrize("op", ["mlp", ["mlp"], "ln", "attention"])
def test_keys_of_a_branch_beside_an_op_without_one(op: Any) -> None:
    """An op as a layer, or in a list, has nothing around it."""
    assert set(BRANCH_KEYS) == BranchSpec.model_fields.keys() - set(OP_KEYS)
    more = {"define": {"ln": "layer_norm"}}
    for key, value in {"norm": "none", "scale": 1e-5, "skip": False, "drop_path": False, "post_act": "relu"}.items():
        beside = {"op": op, key: value}
        layer = network("mlp", stages=[{"dim": 16, "layers": [beside]}, STAGE], **more)
        for spec in (layer, {**inside([beside]), **more}):
            assert f"a branch of a block has {key}, and so has {{op: residual, of: ..., {key}: ...}}" in said(spec)
