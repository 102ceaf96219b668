"""Texts that are valid, or nearly, and ask for far too much: bounded time, and a clear message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blockforge.compiler import compile_spec
from blockforge.errors import SpecError
from blockforge.spec import Hole, from_text

SECONDS = 5.0


def lines(count: int, line: str, end: str = "\n") -> str:
    """`line` many times, with its number for each `%`."""
    return "".join(line.replace("%", str(i)) + end for i in range(count))


def stage(layers: str = "sam", depth: int = 1000, rest: str = "downsample: none", dim: int = 32) -> str:
    return f"  - {{dim: {dim}, depth: {depth}, layers: {layers}, {rest}}}\n"


def connected(rule: str, depth: int = 1000) -> str:
    return stage(depth=depth, rest=f"downsample: none, connect: {{rule: {rule}, aggregate: concat}}")


def names(count: int, line: str) -> tuple[str, str]:
    """A let of `count` names; `+` is the next one's number."""
    rows = "".join(line.replace("%", str(i)).replace("+", str(i + 1)) + "\n" for i in range(count))
    return LET, f"let:\n  heads: $a0\n{rows}  a{count}: 4"


LET = "let: {heads: 4}"
STAGES = "  - {dim: 32, depth: 2, layers: sam}\n  - {dim: 64, depth: 4, layers: (sam msa)*}\n"
MANY = stage(" ".join(f"b{i}" for i in range(190)), 190)
EDGES = [[i, j] for j in range(1, 1000) for i in range(max(0, j - 10), j)][:4500]
DEEP = "[" * 20, "]" * 20

HOSTILE: dict[str, list[tuple[str, str]]] = {
    "thousands of layers": [(STAGES, stage() * 10)],
    "too many layers": [(STAGES, stage() * 16)],
    "dense stages": [(STAGES, connected("dense", 140) * 6)],
    "a dense thousand": [(STAGES, connected("dense"))],
    "a sparx thousand": [(STAGES, connected("sparx, stride: 8"))],
    "thousands of edges": [(STAGES, connected(f"edges, edges: {EDGES}"))],
    "wide and large": [(STAGES, stage(dim=65536)), ("size: 64", "size: 16384")],
    "a block of thousands": [
        ("blocks:", f"blocks:\n  big: [{lines(2000, 'mlp', ', ')}]"),
        (STAGES, stage("big")),
    ],
    "many unknown ops": [
        ("blocks:\n", "blocks:\n" + lines(190, "  b%: [{op: mlp%, mlp_ratio: %}]")),
        (STAGES, MANY),
    ],
    "many unknown blocks": [("blocks:\n", "blocks:\n" + lines(240, "  blk%: [mlp]")), (STAGES, MANY * 16)],
    "many unknown names": [("blocks:\n", "blocks:\n" + lines(200, f"  b%: [{{op: mlp, a: [{'$x, ' * 60}]}}]"))],
    "names that double": [names(60, "  a%: [$a+, $a+]")],
    "a chain of names": [names(240, "  a%: $a+")],
    "deep names": [names(200, f"  a%: {DEEP[0]}$a+{DEEP[1]}")],
    "choices in choices": [("heads: 4", f"heads: {'{$choice: [' * 14}4{', {x: 1}]}' * 14}")],
    "a wide choice": [("heads: 4", f"heads: {{$choice: [{lines(900, '{op: a, k: {$int: [0, %]}}', ', ')}]}}")],
    "many unknown keys": [("head:", lines(240, "k%: 1") + "head:")],
    "many skips": [("head:", "skips:\n" + lines(120, "  - {from: 0, to: [1], op: dwconv_downsample}") + "head:")],
    "many stages": [(STAGES, stage() * 1500)],
    "many broken stages": [(STAGES, "  - {dim: a, depth: b, layers: 3, x: 1}\n" * 1500)],
    "a long pattern": [("(sam msa)*", "(" * 300 + "sam" + ")*9" * 300)],
    "long lists of values": [("num_heads: 4}", f"num_heads: [{'[1], ' * 8000}]}}")],
}


def first(hole: Hole) -> object:
    return hole.labels[0] if hole.kind == "choice" else hole.low


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(tiny: Callable[..., str], name: str) -> None:
    text = tiny(*HOSTILE[name])
    start = time.process_time()
    with contextlib.suppress(SpecError):
        arch = compile_spec(from_text(text), ask=first)
        assert arch.hash
        assert arch.activation_bytes > 0
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too many layers", r"the network has 32000 branches; 20000 are allowed"),
        ("dense stages", r"the network has 60060 edges; 50000 are allowed"),
        ("a dense thousand", r"about 499500 edges; 10000 are allowed in a stage"),
        ("a block of thousands", r"the network has 2000000 branches"),
        ("names that double", r"references make this value too large"),
        ("a chain of names", r"references make this value too large"),
        ("deep names", r"references make this value too large"),
        ("many stages", r"this list should have at most 256 items, not 1500"),
    ],
)
def test_bounds_say_what_they_bound(tiny: Callable[..., str], name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        compile_spec(from_text(tiny(*HOSTILE[name])))


def test_no_more_errors_than_anyone_reads(tiny: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match="unknown-key") as caught:
        compile_spec(from_text(tiny(*HOSTILE["many unknown keys"])))
    assert len(caught.value.diagnostics) == 50


def test_a_large_patch_over_a_large_base(tmp_path: Path, tiny: Callable[..., str]) -> None:
    """Merging takes time in proportion to what is merged."""
    keys = ", ".join(f"k{i}: 1" for i in range(60))
    notes = lines(100, f"  a%: {{{keys}}}")
    (tmp_path / "base.yaml").write_text(tiny((LET, f"{LET}\nabout:\n{notes}")), encoding="utf-8")
    patch = tmp_path / "patch.yaml"
    patch.write_text(f"extends: base.yaml\nabout:\n{notes.replace(': 1', ': [2]')}", encoding="utf-8")
    start = time.process_time()
    assert compile_spec(patch).spec.tree["about"]["a99"]["k59"] == [2]
    assert time.process_time() - start < SECONDS
