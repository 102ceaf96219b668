"""Pictures of stages that form a graph: streams side by side, and ways around what they pass."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
from rich.console import Console
from streams import NETWORKS, network

import blockforge as bf
from blockforge.draw.layout import Layout
from blockforge.draw.marks import Box
from blockforge.draw.opened_block import groups_of, pieces_of
from blockforge.draw.opening import opened
from blockforge.draw.panel import Panel
from blockforge.draw.streams import is_graph, lay_out_streams

SVG = "{http://www.w3.org/2000/svg}"
Point = tuple[float, float]


def layout(arch: bf.Architecture, parts: bool) -> Layout:
    names = opened(arch, parts=True) if parts else ()
    panels = {name: Panel(groups_of(pieces_of(arch.nodes[name]))) for name in names}
    return lay_out_streams(arch, {stage.index: ("stage", "", "") for stage in arch.stages}, panels)


def points(data: str) -> Iterator[Point]:
    """Points on a way of lines to the right and down, and of curves."""
    x = y = 0.0
    for command, text in re.findall(r"([MHVCQ]) ([^MHVCQ]*)", data):
        values = [float(v) for v in text.split()]
        before = x, y
        if command == "H":
            x = values[0]
        elif command == "V":
            y = values[0]
        else:
            x, y = values[-2:]
        if command == "M":
            before = x, y
        first, second = (values[:2], values[2:4]) if command == "C" else (before, (x, y))
        for i in range(21):
            t = i / 20
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            ends = (before, first, second, (x, y))
            yield (
                sum(w * p[0] for w, p in zip(weights, ends, strict=True)),
                sum(w * p[1] for w, p in zip(weights, ends, strict=True)),
            )


def inside(box: Box, point: Point) -> bool:
    return box.x < point[0] < box.right and box.y < point[1] < box.bottom


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_overlaps_and_ways_pass_around_boxes(name: str, parts: bool) -> None:
    arch = bf.compile(NETWORKS[name]())
    found = layout(arch, parts)
    assert set(found.chips) == set(arch.nodes)
    stages = [column.box for column in found.columns]
    for boxes in (list(found.chips.values()), stages):
        for i, a in enumerate(boxes):
            assert a.x >= 0
            assert a.right <= found.width
            assert a.bottom <= found.height
            for b in boxes[:i]:
                assert a.x >= b.right or b.x >= a.right or a.y >= b.bottom or b.y >= a.bottom
    assert found.ways
    for data, _ in found.ways:
        way = list(points(data))
        ends = [box for box in stages if inside(box, way[0]) or inside(box, (way[-1][0] + 2, way[-1][1]))]
        others = [box for box in stages if box not in ends]
        assert not [point for point in way for box in others if inside(box, point)], data


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_go_right_and_maps_of_one_size_stand_in_one_lane(name: str) -> None:
    arch = bf.compile(NETWORKS[name]())
    assert is_graph(arch)
    boxes = {column.stage.index: column.box for column in layout(arch, False).columns}
    owner = {node.name: stage.index for stage in arch.stages for node in stage.nodes}
    for stage in arch.stages:
        for source in {owner[s] for node in stage.nodes for s in node.inputs if s in owner} - {stage.index}:
            assert boxes[source].right < boxes[stage.index].x
    sides = {stage.index: stage.end.last.out_shape.height for stage in arch.stages}
    for a in boxes:
        for b in boxes:
            if sides[a] > sides[b]:
                assert boxes[a].bottom < boxes[b].y


def test_a_picture_tells_every_node_and_the_names_of_stages() -> None:
    root = ET.fromstring(bf.compile(NETWORKS["unet"]()).to_svg())
    words = [t.text or "" for t in root.iter(f"{SVG}text")]
    assert any(word.startswith("stage 3 up1: ") for word in words)
    assert {"concat", "head", "resize"} <= set(words)


def test_texts_for_other_tools_name_stages() -> None:
    arch = bf.compile(NETWORKS["unet"]())
    assert 'subgraph cluster_stage3 { label="stage 3 up1";' in arch.to_dot()
    assert 'subgraph stage3["stage 3 up1"]' in arch.to_mermaid()


def test_a_row_of_stages_is_drawn_as_columns() -> None:
    assert not is_graph(bf.compile(network()))


def test_tables_name_stages_and_tell_what_joins_receive() -> None:
    console = Console(width=160)
    with console.capture() as shown:
        console.print(bf.compile(NETWORKS["unet"]()).summary())
    text = shown.get()
    assert re.search(r"^ 3 up1 +conv_bn +16 ", text, re.MULTILINE)
    assert re.search(r"^ 3\.join .* 3\.from_0, 1\.1 *$", text, re.MULTILINE)
    assert re.search(r"^ 3\.from_0 .* KB *$", text, re.MULTILINE)  # the row above
