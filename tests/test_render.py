"""Tables and pictures of architectures."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.nodes import Node
from blockforge.draw.layout import Box, lay_out
from blockforge.draw.opened_block import groups_of, pieces_of
from blockforge.draw.opening import opened
from blockforge.draw.panel import Panel
from blockforge.draw.picture import DrawError, writer
from blockforge.draw.summary import CONVENTION, compact
from blockforge.draw.svg import to_svg
from blockforge.units import format_bytes, format_count

SVG = "{http://www.w3.org/2000/svg}"
CONNECTED = ["stages.2.connect={rule: sparx, stride: 4, window: 2, aggregate: concat}", "stages.1.window=14"]
SKIPS = ["skips=[{from: 1, to: [2, 3], op: dwconv_downsample}, {from: 0, to: [3], op: dwconv_downsample}]"]
CASES = {
    "zoo": ("smt_b", []),
    "connected": ("smt_t", CONNECTED),
    "dense": ("smt_t", ["stages.2.connect={rule: dense, aggregate: concat}"]),
    "skips": ("smt_t", SKIPS),
    "composed": ("repvit_m0_9", []),
    "crossing ways": ("res2net50", []),
    "no layers": ("smt_t", ["stages.1={dim: 128, depth: 0}", "stages.3={dim: 512, depth: 0}"]),
    "no downsample": ("smt_t", ["stages.1.downsample=none", "stages.1.dim=64", "stage_norm=none"]),
}


@pytest.fixture(scope="module", params=list(CASES))
def arch(request: pytest.FixtureRequest) -> Architecture:
    source, overrides = CASES[request.param]
    return compile_spec(source, overrides)


def _text(arch: Architecture, layers: bool) -> str:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(arch.summary(layers))
    return shown.get()


def test_summary_states_totals_and_convention(arch: Architecture) -> None:
    text = _text(arch, layers=False)
    for figure in (format_count(arch.params), format_count(arch.macs), format_bytes(arch.activation_bytes)):
        assert figure in text
    assert text.count(CONVENTION) == 1
    assert f"at {arch.peak_node}." in text


def test_summary_has_a_row_for_every_layer(arch: Architecture) -> None:
    text = _text(arch, layers=True)
    for stage in arch.plan.stages:
        for layer, (name, _) in enumerate(stage.layers):
            assert re.search(rf"^ *{stage.index}\.{layer} +{name} ", text, re.MULTILINE), (stage.index, layer)


def test_stage_peaks_are_peaks_of_the_whole(arch: Architecture) -> None:
    live = arch.live_bytes
    assert max(live.values()) == arch.activation_bytes
    assert live[arch.peak_node] == arch.activation_bytes


def test_ganglion_layers_show_their_sources() -> None:
    text = _text(compile_spec("smt_t", CONNECTED), layers=True)
    assert re.search(r"^ *2\.3 .* input, 0, 1, 2 *$", text, re.MULTILINE)
    assert re.search(r"^ *2\.7 .* 4, 5, 6, 3 *$", text, re.MULTILINE)
    assert "128x14x14 in 4 windows" in text


def test_warnings_are_shown() -> None:
    text = _text(compile_spec("smt_t", ["stages.3.window=9"]), layers=False)
    assert "warning[window]: window 9 is larger than the map" in text


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ("a", "a"),
        ("aaaa", "4x a"),
        ("aabb", "2x a + 2x b"),
        ("abab", "2x a+b"),
        ("aabaab", "2x (2x a + b)"),
        ("aaabaaaba", "2x (3x a + b) + a"),
        ("abcabca", "2x a+b+c + a"),
    ],
)
def test_layers_in_a_row_are_shortened(names: str, shown: str) -> None:
    assert compact(names) == shown


def test_svg_shows_every_node_and_total(arch: Architecture) -> None:
    root = ET.fromstring(to_svg(arch))
    tips = [t.text or "" for t in root.iter(f"{SVG}title")]
    parts = {s.path for n in arch.nodes.values() if (program := n.program) is not None for s in program.steps}
    assert set(arch.graph.nodes) <= {t.splitlines()[0] for t in tips} <= set(arch.graph.nodes) | parts
    words = " ".join(t.text or "" for t in root.iter(f"{SVG}text"))
    assert format_count(arch.macs) in words
    for stage in arch.plan.stages:
        assert f"stage {stage.index}: {arch.stage_shapes()[stage.index]}" in words


def test_svg_draws_every_long_edge(arch: Architecture) -> None:
    paths = ET.fromstring(to_svg(arch)).iter(f"{SVG}path")
    drawn = [p.get("marker-end") for p in paths]
    sources = [s for n in arch.graph.nodes.values() if n["kind"] == "aggregator" for s in n["inputs"][1:]]
    inside = sum(arch.graph.nodes[s]["layer"] is not None for s in sources)
    assert drawn.count("url(#intra)") == inside + (inside > 0)  # one more in the legend
    assert drawn.count("url(#inter)") == len(sources) - inside + (len(sources) > inside)
    kinds = [n["kind"] for n in arch.graph.nodes.values()]
    skips = kinds.count("skip") + kinds.count("add")
    assert drawn.count("url(#skip)") == skips + (skips > 0)


def test_svg_is_the_same_each_time() -> None:
    assert to_svg(compile_spec("smt_t", CONNECTED)) == to_svg(compile_spec("smt_t", CONNECTED))


def test_svg_escapes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = compile_spec("smt_t")
    monkeypatch.setattr(Node, "parameters", {"x": '<&">'})
    assert "x=&lt;&amp;&quot;&gt;" in to_svg(arch)


def _overlap(a: Box, b: Box) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def test_nothing_overlaps(arch: Architecture) -> None:
    check_layout(arch, ())
    check_layout(arch, opened(arch, parts=True))


def check_layout(arch: Architecture, names: Sequence[str]) -> None:
    panels = {name: Panel(groups_of(pieces_of(arch.nodes[name]))) for name in names}
    layout = lay_out(arch, {s.index: ("", "", "") for s in arch.plan.stages}, panels)
    chips = list(layout.chips.items())
    for i, (name, box) in enumerate(chips):
        assert box.x >= 0
        assert box.right <= layout.width
        assert box.bottom <= layout.height
        for other, there in chips[:i]:
            assert not _overlap(box, there), (name, other)
    for layer, frame in layout.frames.items():
        inside = [layout.chips[name] for name, node in arch.nodes.items() if node.site.unit == layer]
        assert all(frame.x < b.x and b.right < frame.right and frame.y < b.y < b.bottom < frame.bottom for b in inside)


def test_dot_and_mermaid_hold_every_node_and_edge(arch: Architecture) -> None:
    nodes, edges = len(arch.graph), arch.graph.number_of_edges()
    dot, mermaid = arch.to_dot(), arch.to_mermaid()
    assert len(re.findall(r"^ +n\d+_\w+ \[label=", dot, re.MULTILINE)) == nodes
    assert len(re.findall(r"^  n\d+_\w+ -> n\d+_\w+ \[", dot, re.MULTILINE)) == edges
    assert dot.count("{") == dot.count("}")
    assert len(re.findall(r"^ +n\d+_\w+\[\".*\"\]:::\w+$", mermaid, re.MULTILINE)) == nodes
    assert len(re.findall(r"^  n\d+_\w+ (?:-->|-\.->)(?:\|\".*\"\|)? n\d+_\w+$", mermaid, re.MULTILINE)) == edges
    starts = len(re.findall(r"^ +subgraph ", mermaid, re.MULTILINE))
    assert starts == len(re.findall(r"^ +end$", mermaid, re.MULTILINE))


def test_dot_quotes_names() -> None:
    from blockforge.draw.dot_mermaid import to_dot

    arch = compile_spec("smt_t")
    named = replace(arch, source=arch.source.model_copy(update={"name": 'a "b" \\'}))
    assert r'digraph "a \"b\" \\"' in to_dot(named)


def test_unknown_endings_are_refused() -> None:
    with pytest.raises(DrawError, match=r"no picture or graph ends in '\.svgg'\n  hint: did you mean 'svg'\?"):
        writer(".svgg")
    with pytest.raises(DrawError, match="the file needs an ending"):
        writer("")


def test_png_needs_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DrawError, match=r"needs graphviz's program 'dot'.*\n.*apt install graphviz.*\.svg"):
        writer(".png")


def _program(folder: Path, script: str) -> str:
    path = folder / "dot"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_graphviz_draws_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dot = _program(tmp_path, 'cat > "$3"')  # dot -Tpng -o FILE
    monkeypatch.setattr(shutil, "which", lambda name: dot)
    arch = compile_spec("smt_t")
    for suffix, engine in ((".png", "builtin"), (".svg", "dot")):
        writer(suffix, engine)(arch, tmp_path / "out")
        assert (tmp_path / "out").read_text(encoding="utf-8") == arch.to_dot()
    writer(".svg")(arch, tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8") == to_svg(arch)


def test_what_graphviz_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dot = _program(tmp_path, "cat > /dev/null; echo no fonts >&2; exit 3")
    monkeypatch.setattr(shutil, "which", lambda name: dot)
    with pytest.raises(DrawError, match="dot failed: no fonts"):
        writer(".png")(compile_spec("smt_t"), tmp_path / "out")
