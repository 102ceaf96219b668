"""Broken and hostile YAML: nothing but our own errors, in bounded time, and no module is ever built."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import fuzz_campaign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockforge.blocks import registry
from blockforge.compiler import compile_spec
from blockforge.errors import BlockforgeError, SpecError
from blockforge.spec import Hole, from_text, holes, list_specs, load

TESTS = Path(__file__).parents[1]
SECONDS = 5.0
"""For one text, however hostile; the honest ones take milliseconds."""

SAMPLES = [
    *(f.read_text(encoding="utf-8") for f in sorted((TESTS / "data" / "design").glob("*.yaml"))),
    (TESTS / "specs" / "invalid" / "parts" / "tiny.yaml").read_text(encoding="utf-8"),
    """
blockforge: 1
name: everything
input: {size: [64, 96], channels: 3}
num_classes: 10
drop_path: {$float: [0.0, 0.5]}
let: {heads: {$choice: [2, 4]}, S: {$int: [1, 3]}, norm: {op: layer_norm, eps: 1.0e-6}}
defaults: {norm: $norm, scale: {$choice: [none, 0.1, {skip: 1.0}]}}
blocks:
  a:
    - {op: dwconv, norm: none, drop_path: false}
    - {op: sam, num_heads: $heads}
    - {op: conv_mlp, mlp_ratio: $ratio}
  b: [{op: attention, num_heads: $heads}, mlp]
stem: {op: conv_stem, kernel_size: {$choice: [3, 7]}}
downsample: {op: conv_downsample, norm: batch_norm}
stages:
  - {dim: 32, depth: 2, layers: a, let: {ratio: 2}}
  - {dim: 64, depth: 3, layers: {$choice: [(a b)*, a* b*]}, window: 4, let: {ratio: {$float: [1.0, 4.0]}},
     connect: {$choice: [none, {rule: sparx, stride: $S, window: all, aggregate: concat}]}}
  - {dim: 128, depth: 2, layers: b, connect: {rule: dense, aggregate: {op: concat}}}
skips:
  - {from: 0, to: [1, 2], op: dwconv_downsample}
stage_norm: {op: group_norm, num_groups: 4}
head: {op: classifier, norm: none}
""",
    """
blockforge: 1
name: streams
input: {size: 64}
blocks: {a: [{op: dwconv, norm: none}]}
define: {up: [{op: linear, dim: $out}, {op: resize, scale: 2}]}
stem: none
stages:
  - {name: fine, dim: 16, from: {from: input, op: {op: conv, dim: $out, stride: 4}}, depth: 2, layers: a}
  - {name: coarse, dim: 32, from: {from: input, op: {op: conv_stem, kernel_size: 3}}, depth: 1, layers: a}
  - {name: meet, dim: 16, from: [fine, {from: coarse, op: up}], join: {op: {$choice: [sum, max]}, resize: nearest}}
  - dim: 48
    from: [{$choice: [meet, 0]}, coarse, 2]
    join: {op: concat, dim: $out, resize: bilinear}
    stage_norm: layer_norm
features: [fine, 3]
head: classifier
""",
    """
blockforge: 1
name: outputs
input: {size: 32}
num_classes: {$int: [0, 9]}
blocks: {b: [conv_mlp]}
stem: {op: patch_embed, patch: 4}
stages: [{dim: 16, depth: 1, layers: b}]
heads:
  seg: [{op: resize, scale: 4}, {op: conv, dim: $(2 * in), kernel_size: 3}, relu, logits]
  aux: {$choice: [none, [{op: linear, dim: {$int: [2, 8]}}, logits]]}
  top: {op: classifier, pool: {$choice: [avg, max]}}
""",
]
NASTY = """null ~ -1 0 1 1.5 true [] {} [[]] none all $heads $x $ $$ "" 99999999999999999999
    9223372036854775807 -9223372036854775808 1000000000000 65536 16384 1e308 -1e308 1e-320 .nan .inf sam mlp
    layer_norm conv_stem concat
    (a_b)* a*999 ((a)* *alias &a_1 !!python/object:os.system é | > '""".split()  # noqa: SIM905
NASTY += [
    "", "\t", "{a: 1}", "'a b'", "a*1000 b*", "a: b: c", "- - -", "{from: 0, to: [1]}",
    "{from: a, op: b}", "[0, 1]", "{from: [0]}",
    "{$choice: [1, 2]}", "{$choice: []}", "{$choice: 3}", "{$chioce: [1]}", "{$int: [1, 4]}",
    "{$int: [4, 1]}",
    "{$int: [1, 1000000000000, 7]}", "{$float: [0, 1]}", "{$log: [0, 1]}",
    "{$choice: [{$choice: [1, {$int: [1, 2]}]}, none]}",
    "{$choice: [{op: sam, num_heads: {$int: [1, 9]}}, {op: mlp}]}",
    "{op: sam}", "{op: $heads}", "{op: null}", "{rule: dense, aggregate: concat}",
    "{rule: sparx, stride: 1, aggregate: sam}",
    "{rule: edges, edges: [[0, 1], [-1, 0], [5, 2]], aggregate: concat}",
]  # fmt: skip
TOKENS = """dim depth layers op norm scale connect rule aggregate window let stages blocks skips from to stem
    head extends blockforge name $choice about join stage_norm features""".split()  # noqa: SIM905


def no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking a spec never makes a module, and so no tensor."""

    def build(*_: Any) -> NoReturn:
        raise AssertionError("a module is built while a spec is checked")

    for cls in registry.blocks().values():
        monkeypatch.setattr(cls, "build", build)


def attempt(text: str, choose: Callable[[Hole], Any]) -> None:
    """Compile a text in every way; only our own errors may come, and soon."""
    start = time.perf_counter()
    with contextlib.suppress(BlockforgeError):
        spec = from_text(text)
        holes(spec)
        assert from_text(spec.to_yaml()).tree == spec.tree
        arch = compile_spec(spec, ask=choose)
        assert arch.hash
        assert arch.params >= 0
        assert arch.activation_bytes > 0
    assert time.perf_counter() - start < SECONDS


HOW = ("value", "value", "value", "key", "drop", "double", "swap", "cut", "indent", "insert")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid text with a few lines, keys or values replaced, removed, moved or doubled."""
    lines = draw(st.sampled_from(SAMPLES)).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(HOW))
        line = lines[i]
        if how == "drop" and len(lines) > 1:
            del lines[i]
        elif how == "double":
            lines.insert(i, line)
        elif how == "swap":
            j = draw(st.integers(0, len(lines) - 1))
            lines[i], lines[j] = lines[j], line
        elif how in ("value", "key"):
            lines[i] = draw(changed_value(line)) if how == "value" else draw(changed_key(line))
        elif how == "cut":
            lines[i] = line[: draw(st.integers(0, len(line)))]
        elif how == "indent":
            lines[i] = " " * draw(st.integers(0, 6)) + line.lstrip()
        else:
            at = draw(st.integers(0, len(line)))
            lines[i] = line[:at] + draw(st.text(max_size=3) | st.sampled_from(NASTY)) + line[at:]
    return "\n".join(lines) + "\n"


def changed_value(line: str) -> st.SearchStrategy[str]:
    """The line with the value behind one of its colons replaced."""
    colons = [k for k, c in enumerate(line) if c == ":"]
    if not colons:
        return st.just(line)

    def replace(at: int, value: str) -> str:
        end = min((k for k in (line.find(c, at) for c in ",}]") if k > 0), default=len(line))
        return f"{line[: at + 1]} {value}{line[end:]}"

    return st.builds(replace, st.sampled_from(colons), st.sampled_from(NASTY))


def changed_key(line: str) -> st.SearchStrategy[str]:
    known = [t for t in TOKENS if f"{t}:" in line]
    if not known:
        return st.just(line)

    def replace(old: str, new: str) -> str:
        return line.replace(f"{old}:", f"{new}:", 1)

    return st.builds(replace, st.sampled_from(known), st.sampled_from(TOKENS))


CHOICES: list[Callable[[Hole], Any]] = [
    lambda hole: hole.labels[0] if hole.kind == "choice" else hole.low,
    lambda hole: hole.labels[-1] if hole.kind == "choice" else hole.high,
    lambda hole: "no such value",
]


@settings(max_examples=600)
@given(mutated(), st.sampled_from(CHOICES))
def test_mutated_texts(text: str, choose: Callable[[Hole], Any]) -> None:
    attempt(text, choose)


PAIRS = st.tuples(st.sampled_from(TOKENS), st.sampled_from(NASTY))


@settings(max_examples=150)
@given(st.sampled_from(SAMPLES), st.lists(PAIRS, min_size=1, max_size=3))
def test_mutated_settings(text: str, settings_: list[tuple[str, str]]) -> None:
    """`--set` of nasty values at places that exist, or nearly do."""
    where = ("", "stages.1.", "stages.2.connect.", "blocks.a.0.", "let.", "skips.0.", "input.")
    overrides = [f"{where[len(key + value) % len(where)]}{key}={value}" for key, value in settings_]
    start = time.perf_counter()
    with contextlib.suppress(BlockforgeError):
        compile_spec(from_text(text), overrides, ask=CHOICES[0])
    assert time.perf_counter() - start < SECONDS


LEAVES = [None, True, 0, 1, -5, 64, 2.5, 10**30, float("nan"), "sam", "$x", "none", "(a b)*", b"x", object()]
DATA_KEYS = st.sampled_from([*TOKENS, 0, 1, True, None])
DATA = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(DATA_KEYS, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(TOKENS), DATA, max_size=3))
def test_mappings_of_anything(tiny_tree: dict[str, Any], changes: dict[str, Any]) -> None:
    """Python data goes the same way as text."""
    with contextlib.suppress(BlockforgeError):
        compile_spec({**tiny_tree, **changes}, ask=CHOICES[0])


@pytest.fixture(scope="module")
def tiny_tree(tiny: Callable[..., str]) -> dict[str, Any]:
    return from_text(tiny()).tree


# --- the campaign of docs/reliability.md, in short


def test_a_short_campaign() -> None:
    for tally in (
        fuzz_campaign.specs(400, seed=7, build=5),
        fuzz_campaign.lines(60, seed=7),
        fuzz_campaign.files(150, seed=7),
    ):
        assert not tally.raw, tally.examples


HOSTILE: list[Any] = [
    "a" * 300, "a/" * 3000 + "x.yaml", "a" * 5000 + ".yaml", "a\0.yaml", "\0", "./loop.yaml", b"x", 3, None, ["smt_t"],
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=lambda n: str(n)[:12].replace("\0", "NUL"))
def test_names_that_no_spec_can_have(
    name: Any, tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a source, in `extends` of a text, of a file and of a mapping, in overrides and for the zoo."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(SpecError):
        load(name)
    with pytest.raises(SpecError):
        load({"blockforge": 1, "extends": name})
    with pytest.raises(SpecError):
        compile_spec(from_text(tiny()), {"extends": name, "stages": 1})
    with pytest.raises(SpecError):
        compile_spec(from_text(tiny()), [name])
    (tmp_path / "a.yaml").write_text(f"extends: {json.dumps(name if not isinstance(name, bytes) else 'b')}\n")
    with pytest.raises(SpecError):
        load(tmp_path / "a.yaml")
    assert list_specs(str(name)) == []


@pytest.mark.parametrize("keys", [{1: 2, "b": 3}, {1: 2}, {"a": 1, -5: 2, "c": {3: 4, "d": 5}}], ids=repr)
def test_keys_that_are_no_text(keys: dict[Any, Any], tiny_tree: dict[str, Any]) -> None:
    for change in (
        {"let": keys, "require": ["nosuch >= 1"]},
        {"let": keys, "head": "$nosuch"},
        {"stages": [{**tiny_tree["stages"][0], "let": keys}], "require": ["stages.0.nosuch > 0"]},
        {"head": {"op": "classifier", "pool": keys}},
        {"blocks": {"a": [{"op": "dwconv", "kernel_size": keys}]}},
        {"blocks": keys},
    ):
        with pytest.raises(SpecError):
            compile_spec({**tiny_tree, **change})


@pytest.mark.parametrize("key", ["name", "blockforge", "let", "blocks", "stages", "require"])
@pytest.mark.parametrize("value", ["{$choice: [a, b]}", "{$int: [1, 2]}", "[{$float: [0, 1]}]"])
def test_a_hole_where_none_may_stand(key: str, value: str, tiny_tree: dict[str, Any]) -> None:
    rest = [f"{k}: {json.dumps(v)}" for k, v in tiny_tree.items() if k != key]
    with pytest.raises(SpecError) as found:
        from_text("\n".join(["# a comment", f"{key}: {value}", *rest]))
    text = str(found.value)
    assert "<text>:2:" in text
    assert "Hole(" not in text
    assert "hole may stand here" in text or "a list" in text or "a mapping" in text
