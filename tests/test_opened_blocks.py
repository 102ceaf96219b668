"""Composed blocks in pictures: closed in a line of text, opened as their parts."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.compiler import Architecture
from blockforge.draw.layered import place
from blockforge.draw.one_line import in_one_line
from blockforge.draw.opened_block import INPUT, groups_of, opens, pieces_of
from blockforge.draw.opening import opened
from blockforge.draw.panel import Panel
from blockforge.draw.picture import DrawError, writer
from blockforge.errors import BlockforgeError

SVG = "{http://www.w3.org/2000/svg}"
LINES = {
    ("convnext_tiny", "stages.0.layers.0.convnext_block"): (
        "(dwconv 7x7, layer_norm > linear 384, gelu > linear 96 > scale | identity) > add"
    ),
    ("repvit_m0_9", "stages.0.layers.0.rep_dw"): "(dwconv 3x3, batch_norm | dwconv 1x1 | identity) > sum, batch_norm",
    ("repvit_m0_9", "stages.0.layers.0.se"): ("(global_pool > linear 16, relu > linear 48, sigmoid | identity) > mul"),
    ("mobilenetv2_100", "head"): "conv 1280 1x1, batch_norm, relu6 > global_pool > logits 1000",
    ("smt_t", "stages.0.layers.0.sam"): "(layer_norm > sam | identity) > add",
}
CROSSING = ("res2net50", "stages.0.layers.1.next_block")


@pytest.fixture(scope="module")
def repvit() -> Architecture:
    return bf.compile("repvit_m0_9")


@pytest.mark.parametrize(("spec", "node"), LINES)
def test_a_closed_block_says_what_is_in_it(spec: str, node: str) -> None:
    assert in_one_line(groups_of(pieces_of(bf.compile(spec).nodes[node]))) == LINES[spec, node]


def test_where_ways_cross_parts_are_counted() -> None:
    boxes = groups_of(pieces_of(bf.compile(CROSSING[0]).nodes[CROSSING[1]]))
    assert "; 3x conv 3x3, batch_norm, relu; " in in_one_line(boxes, 300)
    short = in_one_line(boxes, 40)
    assert len(short) <= 40
    assert short.endswith(" ...")


def test_blocks_whose_ways_all_cross_are_told_and_drawn_at_once() -> None:
    members = [f"m{i}" for i in range(20)]
    of = {m: {"from": ["input", *members[:i]], "op": {"op": "dwconv"}} for i, m in enumerate(members)}
    dense = {"op": [{"op": "graph", "of": of}], "norm": "none"}
    stage = {"dim": 8, "depth": 1, "layers": "b"}
    tree = {
        "blockforge": 1, "name": "dense", "input": {"size": 32}, "num_classes": 5, "blocks": {"b": [dense]},
        "stem": {"op": "conv", "kernel_size": 4, "stride": 4}, "stages": [stage], "head": ["global_pool", "logits"],
    }  # fmt: skip
    arch = bf.compile(tree)
    (node,) = (node for node in arch.nodes.values() if node.layer == 0)
    assert in_one_line(groups_of(pieces_of(node))).startswith("20x dwconv 3x3; ")
    assert opens(node)
    assert arch.to_svg((node.name,)).count(">dwconv 3x3<") == 20


def test_pieces_are_all_parts_that_act_in_inference() -> None:
    arch = bf.compile("convnext_tiny")
    for node in filter(opens, arch.nodes.values()):
        pieces = pieces_of(node)
        assert node.program is not None
        ops = [step.op.op for step in node.program.steps if step.op.op != "drop_path"]
        assert [piece.says.split()[0] for piece in pieces if "#" in piece.name] == ops
        known = {INPUT}
        for piece in pieces[1:]:
            assert set(piece.inputs) <= known
            known.add(piece.name)
        assert pieces[-1].gives == str(node.out_shape)


def test_each_composed_block_is_a_link_to_its_card(repvit: Architecture) -> None:
    root = ET.fromstring(repvit.to_svg())
    links = [a.get("href", "") for a in root.iter(f"{SVG}a")]
    cards = {g.get("id"): g for g in root.iter(f"{SVG}g") if g.get("class") == "card"}
    composed = [n for n in repvit.nodes.values() if opens(n)]
    assert [link for link in links if link != "#"] == [f"#{key}" for key in cards]
    assert len(cards) == len(composed)
    shared = {g.get("id") for g in root.iter(f"{SVG}g")}
    for card in cards.values():
        assert card.get("display") == "none"
        assert any(a.get("href") == "#" for a in card.iter(f"{SVG}a"))
        assert [use.get("href", "")[1:] in shared for use in card.iter(f"{SVG}use")] == [True]


def test_an_opened_block_stands_in_the_picture(repvit: Architecture) -> None:
    names = opened(repvit, ["se"])
    assert names == tuple(n for n, node in repvit.nodes.items() if n.endswith(".se") and opens(node))
    assert len(names) == 10  # the others are absent
    root = ET.fromstring(repvit.to_svg(names))
    outside = [child for child in root if child.tag != f"{SVG}defs" and child.get("class") != "card"]
    words = [t.text for child in outside for t in child.iter(f"{SVG}text")]
    assert words.count("mul") == len(names)
    assert words.count("sum") == 0


def test_what_is_opened_is_chosen_by_place_name_or_kind(repvit: Architecture) -> None:
    assert opened(repvit, ["stages.0.layers.1.*"]) == ("stages.0.layers.1.rep_dw", "stages.0.layers.1.ffn")
    first = opened(repvit, parts=True)
    assert first[:4] == ("stem", "stages.0.layers.0.rep_dw", "stages.0.layers.0.se", "stages.0.layers.0.ffn")
    assert [n for n in first if "downsample" in n] == ["stages.1.downsample"]
    with pytest.raises(BlockforgeError, match=r"no block to open is called 'see'\n  hint: did you mean 'se'\?"):
        opened(repvit, ["see"])
    with pytest.raises(
        BlockforgeError,
        match=r"no block to open is called 'sam'\n  hint: made of parts are: conv_downsample, conv_mlp, conv_stem",
    ):
        opened(bf.compile("smt_t"), ["sam"])


def test_text_formats_open_blocks_too(repvit: Architecture, tmp_path: Path) -> None:
    names = opened(repvit, parts=True)
    dot, mermaid = repvit.to_dot(names), repvit.to_mermaid(names)
    known = set(re.findall(r"^ +(n\d+_\w+) \[label=", dot, re.MULTILINE))
    ends = set(re.findall(r"^  (n\d+_\w+) -> (n\d+_\w+) \[", dot, re.MULTILINE))
    assert {end for edge in ends for end in edge} == known
    assert dot.count("{") == dot.count("}")
    assert dot.count("_parts {") == mermaid.count("_parts[") == len(names)
    shown = set(re.findall(r"^ +(n\d+_\w+)\[\"", mermaid, re.MULTILINE))
    assert shown == known
    writer(".mmd", parts=True)(repvit, tmp_path / "net.mmd")
    assert (tmp_path / "net.mmd").read_text(encoding="utf-8") == mermaid
    with pytest.raises(DrawError, match="json holds the graph without parts"):
        writer(".json", parts=True)


def test_notebooks_show_the_picture(repvit: Architecture) -> None:
    shown = repvit._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "&lt;svg" in shown


@pytest.mark.parametrize("seed", range(20))
def test_layers_of_any_graph_keep_boxes_and_ways_apart(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(rng.randint(2, 14))]
    sizes = {name: (rng.uniform(20, 120), rng.uniform(20, 60)) for name in names}
    edges = {(names[rng.randrange(i)], names[i]) for i in range(1, len(names)) for _ in range(rng.randint(1, 3))}
    placed = place(sizes, sorted(edges))
    boxes = [(*placed.corners[n], *sizes[n]) for n in names]
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= -1e-6
        assert x + w <= placed.width + 1e-6
        assert y + h <= placed.height + 1e-6
        for a, b, c, d in boxes[:i]:
            assert x + w <= a + 1e-6 or a + c <= x + 1e-6 or y + h <= b + 1e-6 or b + d <= y + 1e-6
    for (source, target), points in placed.ways.items():
        assert points[0][1] < points[-1][1], (source, target)
        for x, y in points[1:-1]:
            assert not any(a < x < a + c and b < y < b + d for a, b, c, d in boxes), (source, target)


def test_equal_blocks_have_equal_panels(repvit: Architecture) -> None:
    names = [f"stages.{place}.ffn" for place in ("0.layers.0", "0.layers.1", "1.layers.0")]
    first, second, other = (Panel(groups_of(pieces_of(repvit.nodes[name]))) for name in names)
    assert first == second
    assert hash(first) == hash(second)
    assert first != other
