"""The canonical hash: equal for every spelling of an architecture, different for every other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockforge.compiler import compile_spec
from blockforge.spec import fill, from_text

Tiny = Callable[..., str]
Change = tuple[str, str]


def digest(text: str) -> str:
    return compile_spec(from_text(text)).hash


def connect(rule: str, layers: str = "sam", depth: int = 8) -> Change:
    spelled = f"depth: {depth}, layers: {layers}, connect: {{{rule}, aggregate: concat}}}}"
    return ("depth: 4, layers: (sam msa)*}", spelled)


def skips(*ops: str) -> Change:
    return ("head:", "skips:\n" + "".join(f"  - {{from: 0, to: [1], op: {op}}}\n" for op in ops) + "head:")


LAST = "layers: (sam msa)*}"
CONV = "downsample: {op: conv_downsample, norm: layer_norm}"
EDGES = "rule: edges, edges: [[-1, 1], [0, 1], [2, 3], [1, 3], [4, 5], [1, 5], [3, 5], [6, 7], [3, 7], [5, 7]]"

SPELLINGS: dict[str, tuple[list[Change], list[Change]]] = {
    "let or literal": ([], [("$heads", "4")]),
    "another name in let": ([], [("{heads: 4}", "{count: 4}"), ("$heads", "$count")]),
    "a stage's let": ([], [("layers: sam}", "layers: sam, let: {heads: 4}}")]),
    "patterns": ([], [("(sam msa)*", "sam msa sam msa")]),
    "repeated": ([], [("(sam msa)*", "(sam msa)*2")]),
    "starred": ([("(sam msa)*", "sam* msa*")], [("(sam msa)*", "sam*2 msa*2")]),
    "names of blocks": (
        [],
        [("  sam:", "  first:"), ("layers: sam}", "layers: first}"), ("(sam ", "(first ")],
    ),
    "name and notes": ([], [("name: tiny", "name: other\nabout: {seen: today}")]),
    "order of keys": ([], [(f"dim: 64, depth: 4, {LAST}", "layers: (sam msa)*, depth: 4, dim: 64}")]),
    "short form": ([], [("stem: {op: conv_stem}", "stem: conv_stem")]),
    "a default said": ([], [("num_heads: $heads}", "num_heads: $heads, expand: 2}")]),
    "whole numbers": ([], [("mlp_ratio: 4}", "mlp_ratio: 4.0}")]),
    "norm in each branch": (
        [],
        [
            ("defaults: {norm: layer_norm}\n", ""),
            ("num_heads: $heads}", "num_heads: $heads, norm: layer_norm}"),
            ("mlp_ratio: 4}", "mlp_ratio: 4, norm: layer_norm}"),
            ("num_heads: 4}", "num_heads: 4, norm: {op: layer_norm}}"),
            ("mlp_ratio: 2}", "mlp_ratio: 2, norm: layer_norm}"),
        ],
    ),
    "one side": ([], [("{size: 64}", "{size: [64, 64], channels: 3}")]),
    "drop path": ([("head:", "drop_path: 0.1\nhead:")], [("head:", "drop_path: {linear: 0.1}\nhead:")]),
    "scale": (
        [("num_heads: 4}", "num_heads: 4, scale: 0.1}")],
        [("num_heads: 4}", "num_heads: 4, scale: {branch: 0.1}}")],
    ),
    "no scale": ([], [("num_heads: 4}", "num_heads: 4, scale: none}")]),
    "downsample of a stage": ([], [(f"{CONV}\n", ""), ("dim: 64", f"{CONV}, dim: 64")]),
    "all is many": (
        [connect("rule: sparx, stride: 2, window: all")],
        [connect("rule: sparx, stride: 2, window: 99")],
    ),
    "start where it starts": (
        [connect("rule: sparx, stride: 2")],
        [connect("rule: sparx, stride: 2, start: 1")],
    ),
    "sparx as edges": ([connect("rule: sparx, stride: 2, window: 2")], [connect(EDGES)]),
    "dense as edges": (
        [connect("rule: dense", depth=3)],
        [connect("rule: edges, edges: [[0, 1], [0, 2], [1, 2]]", depth=3)],
    ),
    "width of heads": (
        [("{op: attention, num_heads: 4}", "{op: attention, num_heads: 2}")],
        [("{op: attention, num_heads: 4}", "{op: attention, head_dim: 32}")],
    ),
    "the usual heads": (
        [("{op: attention, num_heads: 4}", "{op: attention, num_heads: 2}")],
        [("{op: attention, num_heads: 4}", "attention")],
    ),
    "half a window": (
        [("{op: attention, num_heads: 4}", "{op: attention, num_heads: 4, window: 4, shift: half}")],
        [("{op: attention, num_heads: 4}", "{op: attention, num_heads: 4, window: 4, shift: 2}")],
    ),
    "heads of a duality": (
        [("{op: attention, num_heads: 4}", "{op: nc_ssd, head_dim: 16}")],
        [("{op: attention, num_heads: 4}", "{op: nc_ssd, num_heads: 8}")],
    ),
    "groups of strips": (
        [("{op: attention, num_heads: 4}", "{op: strip_mixing, patch: 4}")],
        [("{op: attention, num_heads: 4}", "{op: strip_mixing, groups: 8}")],
    ),
    "directions of a scan": (
        [("{op: attention, num_heads: 4}", "{op: ss2d, scans: bidirectional}")],
        [("{op: attention, num_heads: 4}", "{op: ss2d, scans: [rows, rows_back], dt_rank: 4}")],
    ),
    "order of skips": (
        [skips("dwconv_downsample", "conv_downsample")],
        [skips("conv_downsample", "dwconv_downsample")],
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_architecture(tiny: Tiny, spelling: str) -> None:
    one, other = (tiny(*changes) for changes in SPELLINGS[spelling])
    assert one != other
    assert digest(one) == digest(other)


MSA = ("    - {op: attention, num_heads: 4}\n", "    - {op: mlp, mlp_ratio: 2}\n")

CHANGES: dict[str, list[Change]] = {
    "as it is": [],
    "dim": [("dim: 64", "dim: 96")],
    "depth": [("depth: 4", "depth: 5")],
    "pattern": [("(sam msa)*", "(msa sam)*")],
    "op": [("{op: mlp, mlp_ratio: 2}", "{op: conv_mlp, mlp_ratio: 2}")],
    "parameter": [("mlp_ratio: 2", "mlp_ratio: 2.5")],
    "order of branches": [("".join(MSA), "".join(reversed(MSA)))],
    "norm": [("{norm: layer_norm}", "{norm: group_norm}")],
    "eps": [("{norm: layer_norm}", "{norm: {op: layer_norm, eps: 1.0e-6}}")],
    "no norm": [("num_heads: 4}", "num_heads: 4, norm: none}")],
    "scale": [("num_heads: 4}", "num_heads: 4, scale: 0.1}")],
    "skip scale": [("num_heads: 4}", "num_heads: 4, scale: {skip: 0.1}}")],
    "post act": [("num_heads: 4}", "num_heads: 4, post_act: relu}")],
    "no identity path": [("num_heads: 4}", "num_heads: 4, skip: false}")],
    "drop path": [("head:", "drop_path: 0.1\nhead:")],
    "constant drop path": [("head:", "drop_path: {constant: 0.1}\nhead:")],
    "kept branch": [("head:", "drop_path: 0.1\nhead:"), ("num_heads: 4}", "num_heads: 4, drop_path: false}")],
    "size": [("{size: 64}", "{size: [64, 96]}")],
    "channels": [("{size: 64}", "{size: 64, channels: 1}")],
    "classes": [("head:", "num_classes: 10\nhead:")],
    "stem": [("{op: conv_stem}", "{op: conv_stem, kernel_size: 7}")],
    "downsample": [(CONV, "downsample: conv_downsample")],
    "head": [("{op: classifier, norm: layer_norm}", "{op: classifier, pool: max}")],
    "stage norm": [("head:", "stage_norm: layer_norm\nhead:")],
    "window": [(LAST, f"{LAST[:-1]}, window: 4}}")],
    "skip": [skips("dwconv_downsample")],
    "skip's op": [skips("conv_downsample")],
    "dense": [connect("rule: dense", "(sam msa)*", 4)],
    "sparx": [connect("rule: sparx, stride: 2", "(sam msa)*", 4)],
    "sparx, narrow": [connect("rule: sparx, stride: 1, window: 1", "(sam msa)*", 4)],
    "edges": [connect("rule: edges, edges: [[0, 2], [1, 2]]", "(sam msa)*", 4)],
    "order of sources": [connect("rule: edges, edges: [[1, 2], [0, 2]]", "(sam msa)*", 4)],
}


def test_every_change_shows(tiny: Tiny) -> None:
    found: dict[str, str] = {}
    for name, changes in CHANGES.items():
        same = found.setdefault(digest(tiny(*changes)), name)
        assert same == name, f"{name} hashes like {same}"


def test_extends_and_flat(tmp_path: Any, tiny: Tiny) -> None:
    (tmp_path / "base.yaml").write_text(tiny(), encoding="utf-8")
    (tmp_path / "v.yaml").write_text("extends: base.yaml\nname: v\nstages: {1: {depth: 6}}\n", encoding="utf-8")
    assert compile_spec(tmp_path / "v.yaml").hash == digest(tiny(("depth: 4", "depth: 6")))
    assert compile_spec(tmp_path / "base.yaml", ["stages.1.depth=6"]).hash == compile_spec(tmp_path / "v.yaml").hash


@given(
    st.sampled_from([32, 64]),
    st.integers(1, 5),
    st.sampled_from([2, 4]),
    st.sampled_from(["sam", "(msa sam)*", "sam* msa*"]),
)
def test_a_filled_space_equals_the_literal_spec(tiny: Tiny, dim: int, depth: int, heads: int, layers: str) -> None:
    """A candidate of a search, its filled spec, that read back, and the same written by hand: one hash."""
    space = from_text(
        tiny(
            ("heads: 4", "heads: {$choice: [2, 4]}"),
            ("dim: 64, depth: 4", "dim: {$int: [32, 64, 32]}, depth: {$int: [1, 5]}"),
            ("(sam msa)*", "{$choice: [sam, (msa sam)*, sam* msa*]}"),
        )
    )
    answers = {"let.heads": heads, "stages.1.dim": dim, "stages.1.depth": depth, "stages.1.layers": layers}
    size = ("dim: 64, depth: 4", f"dim: {dim}, depth: {depth}")
    by_hand = tiny(("heads: 4", f"heads: {heads}"), size, ("(sam msa)*", layers))
    filled = fill(space, answers)
    hashes = {
        compile_spec(space, ask=lambda hole: answers[hole.name]).hash,
        compile_spec(filled).hash,
        digest(filled.to_yaml()),
        digest(by_hand),
    }
    assert len(hashes) == 1
