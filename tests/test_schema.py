"""The JSON Schema accepts what the compiler accepts, and refuses typos."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from blockforge.blocks import registry
from blockforge.blocks.base import Kind
from blockforge.compiler.graph.connect import RULES
from blockforge.schema import json_schema, schema_text
from blockforge.search.space.load import list_spaces, load_space
from blockforge.spec import from_text, list_specs
from blockforge.spec.yaml.loader import load_file, load_text

HEADER = "# yaml-language-server: $schema="
TESTS = Path(__file__).parent
DESIGN = sorted((TESTS / "data" / "design").glob("*.yaml"))
SLOTS = ("stem", "downsample", "aggregate", "norm", "stage_norm", "head", "op")
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    made = json_schema()
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def _zoo(name: str) -> Tree:
    text = (resources.files("blockforge.specs") / f"{name}.yaml").read_text(encoding="utf-8")
    return _json(load_text(text).tree)


def _json(tree: Any) -> Tree:
    """As an editor sees it: the keys are text."""
    return json.loads(json.dumps(tree))


def _ops(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in SLOTS and isinstance(value, str):
                yield value
            yield from _ops(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _ops(value)


def test_the_packaged_schema_is_fresh() -> None:
    packaged = (resources.files("blockforge.specs") / "schema.json").read_text(encoding="utf-8")
    assert packaged == schema_text(), "run: python docs/generate.py schema.json"


@pytest.mark.parametrize("name", list_specs())
def test_the_zoo_is_valid_and_names_the_schema(schema: Draft202012Validator, name: str) -> None:
    schema.validate(_zoo(name))
    text = (resources.files("blockforge.specs") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"{HEADER}schema.json\n")


@pytest.mark.parametrize("file", sorted((TESTS / "specs").glob("*.yaml")), ids=lambda f: f.stem)
def test_test_specs_are_valid_and_name_the_schema(schema: Draft202012Validator, file: Path) -> None:
    schema.validate(_json(load_file(file).tree))
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(HEADER)
    assert (file.parent / first.removeprefix(HEADER)).resolve() == (TESTS.parent / "specs" / "schema.json").resolve()


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("{blockforge: 1, define: {a: [conv, relu]}}", True),
        ("{blockforge: 1, use: [std, {m: lib.yaml}], define: {}}", True),
        ("{define: {a: relu}}", False),
        ("{blockforge: 1, define: {a: {params: {k: 3}}}}", False),
        ("{blockforge: 1, define: {a: relu}, name: net}", False),
    ],
)
def test_files_of_definitions_are_described(schema: Draft202012Validator, text: str, valid: bool) -> None:
    assert schema.is_valid(_json(load_text(text, "lib").tree)) == valid


@pytest.mark.parametrize("name", list_spaces())
def test_search_spaces_are_valid(schema: Draft202012Validator, name: str) -> None:
    schema.validate(_json(load_space(name).tree))


@pytest.mark.parametrize("file", DESIGN, ids=lambda f: f.stem)
def test_the_design_is_valid_up_to_blocks_that_do_not_exist_yet(schema: Draft202012Validator, file: Path) -> None:
    tree = _json(load_file(file).tree)
    missing = {op for op in _ops(tree) if op != "none" and not op.startswith("$")} - set(registry.blocks())
    errors = list(schema.iter_errors(tree))
    assert bool(errors) == bool(missing), [e.message[:200] for e in errors]


@pytest.mark.parametrize("name", sorted(registry.blocks().keys() - registry.blocks("part", "join").keys()))
def test_every_block_is_described_with_its_parameters(schema: Draft202012Validator, name: str) -> None:
    classes = {c for kind in get_args(Kind) for n, c in registry.blocks(kind).items() if n == name}
    found = [s for d in schema.schema["$defs"].values() for s in d.get("anyOf", ()) if s.get("title") == name]
    assert len(found) >= 2  # in a spec, and in a patch
    for shape in found:
        (cls,) = (c for c in classes if shape["description"] in " ".join((c.__doc__ or "").split()))
        for key, field in cls.model_fields.items():
            assert not field.description or "description" in shape["properties"][key]


def test_every_connection_rule_is_described(schema: Draft202012Validator) -> None:
    assert [s.get("title") for s in schema.schema["$defs"]["ConnectSpec"]["anyOf"]] == [*RULES, None]


def _changed(change: Callable[[Tree], Any]) -> Tree:
    tree = copy.deepcopy(_zoo("smt_b"))
    change(tree)
    return tree


def _stage(**keys: Any) -> Callable[[Tree], Any]:
    return lambda t: t["stages"][2].update(keys)


def _branch(**keys: Any) -> Callable[[Tree], Any]:
    return lambda t: t["blocks"]["sam"][0].update(keys)


def _top(**keys: Any) -> Callable[[Tree], Any]:
    return lambda t: t.update(keys)


SPARX = {"rule": "sparx", "stride": "$S", "window": {"$choice": [1, "all"]}, "aggregate": {"op": "concat"}}


@pytest.mark.parametrize(
    "change",
    [
        _stage(depth={"$int": [4, 28]}),
        _stage(layers=["sam*", {"op": "mlp"}, ["layer_norm", "mlp"]]),
        _stage(dim={"$int": [64, 256, 32]}),
        _stage(dim="$dim"),
        _stage(layers={"$choice": ["sam", "(sam msa)*"]}),
        _stage(window="none"),
        _stage(connect="none"),
        _stage(connect=SPARX),
        _stage(connect={"$choice": ["none", SPARX]}),
        _stage(connect={"rule": "edges", "edges": [[0, 3]], "aggregate": "concat"}),
        _top(drop_path={"$float": [0.0, 0.5]}),
        _top(drop_path={"constant": 0.1}),
        _branch(scale={"skip": 1.0}),
        _branch(scale={"$log": [1e-5, 1]}),
        _branch(norm="none"),
        _branch(num_heads={"$choice": [2, 4, {"$int": [8, 16]}]}),
        _top(downsample={"op": {"$choice": ["conv_downsample", "dwconv_downsample"]}}),
        _top(input={"size": 192}),
        _top(input={"size": [192, "$w"]}),
        _stage(dim="$(2 * w)", depth={"$choice": ["$(d + 1)", 2]}),
        _branch(num_heads="$(near(heads * in, 8))"),
        _top(skips=[{"from": 1, "to": [2, 3], "op": "dwconv_downsample"}]),
        lambda t: t["blocks"]["sam"].insert(0, "dwconv"),
    ],
)
def test_references_holes_and_short_forms_are_valid(
    schema: Draft202012Validator, change: Callable[[Tree], Any]
) -> None:
    schema.validate(_changed(change))


@pytest.mark.parametrize(
    "change",
    [
        _stage(depth=-1),
        _stage(dim={"$int": [64]}),
        _stage(dim={"$range": [64, 128]}),
        _stage(layers=[]),
        _stage(layers=["sam", 3]),
        _stage(layers=3),
        _stage(connect={"rule": "sparx", "strid": 2, "aggregate": "concat"}),
        _stage(connect={"rule": "sparks", "stride": 2, "aggregate": "concat"}),
        _stage(connect={"rule": "sparx", "stride": 2}),
        _branch(num_heads=0),
        _branch(num_heads="four"),
        _branch(num_heads="$(four"),
        _branch(num_heads={"$choice": [0, "x"]}),
        _branch(op="layer_norm"),
        _top(stem="sam"),
        _top(blockforge=2),
        _top(stage_norm=None),
        _top(skips=[{"from": 1, "to": [2, 3], "op": "conv_mlp"}]),
        lambda t: t.pop("head"),
    ],
)
def test_wrong_values_are_refused(schema: Draft202012Validator, change: Callable[[Tree], Any]) -> None:
    assert not schema.is_valid(_changed(change))


def _keys(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key whose name the language fixes."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if path[-1:] != ("let",) and path != ("blocks",):
                yield (*path, key)
            if key != "about":
                yield from _keys(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _keys(value, (*path, i))


@pytest.mark.parametrize("path", list(_keys(_zoo("smt_b"))), ids=lambda p: ".".join(map(str, p)))
def test_a_misspelt_key_is_refused(schema: Draft202012Validator, path: tuple[Any, ...]) -> None:
    tree = copy.deepcopy(_zoo("smt_b"))
    place: Any = tree
    for part in path[:-1]:
        place = place[part]
    place[f"{path[-1]}x"] = place.pop(path[-1])
    assert not schema.is_valid(tree)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("extends: smt_s\nstages: {2: {depth: 12}}", True),
        ("extends: smt_s\nname: x\nstem: {kernel_size: 5}", True),
        ("extends: smt_s\nblocks: {sam: {0: {num_heads: 8}}}", True),
        ("extends: smt_s\nstages: {2: {connect: {rule: sparx, stride: 2, aggregate: concat}}}", True),
        ("extends: smt_s\nstags: {2: {depth: 12}}", False),
        ("extends: smt_s\nstem: {kernel_siz: 5}", False),
        ("extends: smt_s\nstages: {2: {dept: 3}}", False),
        ("extends: smt_s\nstages: {two: {depth: 3}}", False),
        ("extends: 3", False),
        ("name: x", False),
    ],
)
def test_with_extends_parts_may_be_missing(schema: Draft202012Validator, text: str, valid: bool) -> None:
    assert schema.is_valid(_json(load_text(text).tree)) == valid


# --- definitions

DEFINING = """\
define:
  ln: {op: layer_norm, eps: 1e-6}
  star: {params: {ratio: required, act: relu}, body: [{op: linear, dim: $(ratio * in)}, $act, {op: linear, dim: $out}]}
use: [{m: std}]
"""


@pytest.fixture(scope="module")
def own_schema(tiny: Callable[..., str]) -> Draft202012Validator:
    """The schema of a spec with definitions."""
    made = json_schema(from_text(tiny() + DEFINING))
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


@pytest.mark.parametrize(
    "op",
    [
        "[ln, {op: star, ratio: 3}]", "{op: star, ratio: {$choice: [2, 3]}, norm: ln}", "{op: [mlp], skip: false}",
        "{op: m.conv_bn, dim: 3, act: {op: gelu}}", "{op: parallel, of: {a: ln, b: [mlp]}, when: $(in > 3)}", "ln",
    ],
)  # fmt: skip
def test_ops_of_any_form_are_valid(
    schema: Draft202012Validator, own_schema: Draft202012Validator, tiny: Callable[..., str], op: str
) -> None:
    text = tiny(("{op: mlp, mlp_ratio: 2}", op)) + DEFINING
    for tree in (load_text(text).tree, from_text(text).tree):  # as it is written, and once it is loaded
        schema.validate(_json(tree))
        own_schema.validate(_json(tree))


@pytest.mark.parametrize(
    "op", ["{op: star, ratoi: 3}", "{op: star}", "{op: sta, ratio: 3}", "{op: [mlp], ratio: 3}", "conv_bn", "[]"]
)
def test_the_schema_of_a_spec_knows_its_definitions(
    own_schema: Draft202012Validator, tiny: Callable[..., str], op: str
) -> None:
    tree = load_text(tiny(("{op: mlp, mlp_ratio: 2}", op)) + DEFINING).tree
    assert not own_schema.is_valid(_json(tree))


@pytest.mark.parametrize(
    "more", ["define: {f: {body: mlp, x: 1}}", "define: [f]", "use: 3", "use: [{m: 3}]", "define: {f: 3}"]
)
def test_malformed_definitions_are_not_valid(schema: Draft202012Validator, tiny: Callable[..., str], more: str) -> None:
    assert not schema.is_valid(_json(load_text(f"{tiny()}{more}\n").tree))
