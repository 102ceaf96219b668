"""The graph as text for other drawing tools: graphviz's DOT and Mermaid. `svg` draws without either."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Edge, Node
from blockforge.compiler.graph.sites import ImageSite
from blockforge.compiler.graph.units import Layer, Stage

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

COLOURS = {
    "input": "#e8e8e8",
    "stem": "#f6d9b8",
    "downsample": "#f6d9b8",
    "mixer": "#bcd9f5",
    "ffn": "#cfe8cf",
    "part": "#d3d5f5",
    "aggregator": "#e3c9ee",
    "join": "#e3c9ee",
    "norm": "#eeeeee",
    "act": "#eeeeee",
    "window_in": "#f7f0b5",
    "window_out": "#f7f0b5",
    "skip": "#f4c6cf",
    "add": "#f4c6cf",
    "head": "#f6d9b8",
}
"""Fill of a node, by its kind."""
EDGES = {"main": "#5a5a5a", "intra": "#8e44ad", "inter": "#c0792a", "skip": "#c0392b"}
"""Colour of an edge, by its role."""


def to_dot(arch: Architecture) -> str:
    """The graph in graphviz's language: a box a stage, in it a box a layer."""
    ids = _ids(arch)
    lines = [
        f"digraph {_quoted(arch.name)} {{",
        f'  graph [label={_quoted(arch.name)}, labelloc=t, fontname="Helvetica", compound=true];',
        '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=10, color="#777777"];',
        '  edge [fontname="Helvetica", fontsize=8];',
    ]
    lines += _nested(
        arch,
        lambda n: f'{ids[n.name]} [label={_quoted(_label(n))}, fillcolor="{COLOURS[n.kind]}"];',
        _cluster,
    )
    for edge in arch.edges:
        style = "" if edge.role == "main" else ", style=dashed, constraint=false"
        label = f", label={_quoted(str(edge.shape))}" if _changes_stage(arch, edge) else ""
        lines.append(f'  {ids[edge.source]} -> {ids[edge.target]} [color="{EDGES[edge.role]}"{style}{label}];')
    return "\n".join([*lines, "}", ""])


def to_mermaid(arch: Architecture) -> str:
    """The graph as a Mermaid flowchart: a subgraph a stage, in it a subgraph a layer."""
    ids = _ids(arch)
    lines = ["flowchart TB"]
    lines += _nested(arch, lambda n: f'{ids[n.name]}["{_entities(_label(n))}"]:::{n.kind}', _subgraph)
    for edge in arch.edges:
        arrow = "-->" if edge.role == "main" else "-.->"
        label = f'|"{edge.shape}"|' if _changes_stage(arch, edge) else ""
        lines.append(f"  {ids[edge.source]} {arrow}{label} {ids[edge.target]}")
    kinds = dict.fromkeys(node.kind for node in arch.nodes.values())
    lines += [f"  classDef {kind} fill:{COLOURS[kind]},stroke:#777,color:#222" for kind in kinds]
    return "\n".join([*lines, ""])


def _nested(
    arch: Architecture, node: Callable[[Node], str], frame: Callable[[str, str], tuple[str, str]]
) -> Iterator[str]:
    """The nodes, each inside the frames of its stage and layer; a frame opens where it first occurs."""
    stages = {stage.index: stage for stage in arch.stages}
    for unit in arch.units:
        if unit.stage is None:
            yield f"  {node(unit.first)}"
        elif (stage := stages.pop(unit.stage, None)) is not None:
            yield from _framed(stage, node, frame)


def _framed(stage: Stage, node: Callable[[Node], str], frame: Callable[[str, str], tuple[str, str]]) -> Iterator[str]:
    opening, closing = frame(f"stage{stage.index}", f"stage {stage.index}")
    yield f"  {opening}"
    for unit in stage.units:
        if isinstance(unit, Layer):
            inner, end = frame(f"stage{stage.index}_layer{unit.index}", f"layer {unit.index}")
            yield from (f"    {inner}", *(f"      {node(n)}" for n in unit.nodes), f"    {end}")
        else:
            yield f"    {node(unit.first)}"
    yield f"  {closing}"


def _cluster(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph cluster_{identifier} {{ label="{label}"; style=rounded; color="#999999";', "}"


def _subgraph(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph {identifier}["{label}"]', "end"


def _ids(arch: Architecture) -> dict[str, str]:
    """Plain identifiers, readable and all different."""
    return {name: f"n{i}_{re.sub(r'[^A-Za-z0-9]', '_', name)}" for i, name in enumerate(arch.nodes)}


def _label(node: Node) -> str:
    return f"{node.op} {node.out_shape}" if isinstance(node.site, ImageSite) else node.op


def _changes_stage(arch: Architecture, edge: Edge) -> bool:
    return arch.nodes[edge.source].stage != arch.nodes[edge.target].stage


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _entities(text: str) -> str:
    """Text in Mermaid's quotes: its own escape is `#` and an entity's name."""
    return html.escape(text).replace("&", "#").replace("\n", " ")
