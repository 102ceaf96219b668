"""The graph as text for other drawing tools: graphviz's DOT and Mermaid. `svg` draws without either."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

import networkx as nx

COLOURS = {
    "input": "#e8e8e8",
    "stem": "#f6d9b8",
    "downsample": "#f6d9b8",
    "mixer": "#bcd9f5",
    "ffn": "#cfe8cf",
    "aggregator": "#e3c9ee",
    "norm": "#eeeeee",
    "window_in": "#f7f0b5",
    "window_out": "#f7f0b5",
    "skip": "#f4c6cf",
    "add": "#f4c6cf",
    "head": "#f6d9b8",
}
"""Fill of a node, by its kind."""
EDGES = {"main": "#5a5a5a", "intra": "#8e44ad", "inter": "#c0792a", "skip": "#c0392b"}
"""Colour of an edge, by its role."""

Groups = dict[tuple[int | None, int | None], list[str]]


def groups(graph: nx.DiGraph) -> Groups:
    """The nodes of each (stage, layer), in execution order; None: outside stages, or outside layers."""
    found: Groups = {}
    for name, node in graph.nodes(data=True):
        found.setdefault((node["stage"], node["layer"]), []).append(name)
    return found


def to_dot(graph: nx.DiGraph, name: str) -> str:
    """The graph in graphviz's language: a box a stage, in it a box a layer."""
    ids = _ids(graph)
    lines = [
        f"digraph {_quoted(name)} {{",
        f'  graph [label={_quoted(name)}, labelloc=t, fontname="Helvetica", compound=true];',
        '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=10, color="#777777"];',
        '  edge [fontname="Helvetica", fontsize=8];',
    ]
    lines += _nested(
        graph,
        lambda n: f"{ids[n]} [label={_quoted(_label(graph, n))}, fillcolor={_fill(graph, n)}];",
        _cluster,
    )
    for source, target, edge in graph.edges(data=True):
        main = edge["role"] == "main"
        style = "" if main else ", style=dashed, constraint=false"
        label = f", label={_quoted(str(edge['shape']))}" if _changes_stage(graph, source, target) else ""
        lines.append(f'  {ids[source]} -> {ids[target]} [color="{EDGES[edge["role"]]}"{style}{label}];')
    return "\n".join([*lines, "}", ""])


def to_mermaid(graph: nx.DiGraph) -> str:
    """The graph as a Mermaid flowchart: a subgraph a stage, in it a subgraph a layer."""
    ids = _ids(graph)
    lines = ["flowchart TB"]
    lines += _nested(
        graph, lambda n: f'{ids[n]}["{_entities(_label(graph, n))}"]:::{graph.nodes[n]["kind"]}', _subgraph
    )
    for source, target, edge in graph.edges(data=True):
        arrow = "-->" if edge["role"] == "main" else "-.->"
        label = f'|"{edge["shape"]}"|' if _changes_stage(graph, source, target) else ""
        lines.append(f"  {ids[source]} {arrow}{label} {ids[target]}")
    kinds = {node["kind"]: None for node in graph.nodes.values()}
    lines += [f"  classDef {kind} fill:{COLOURS[kind]},stroke:#777,color:#222" for kind in kinds]
    return "\n".join([*lines, ""])


def _nested(
    graph: nx.DiGraph, node: Callable[[str], str], frame: Callable[[str, str], tuple[str, str]]
) -> Iterator[str]:
    """The nodes, each inside the frames of its stage and layer; a frame opens where it first occurs."""
    found = groups(graph)
    for stage in dict.fromkeys(stage for stage, _ in found):
        inside = [(layer, names) for (s, layer), names in found.items() if s == stage]
        if stage is None:
            yield from (f"  {node(n)}" for _, names in inside for n in names)
            continue
        opening, closing = frame(f"stage{stage}", f"stage {stage}")
        yield f"  {opening}"
        for layer, names in inside:
            if layer is None:
                yield from (f"    {node(n)}" for n in names)
                continue
            inner, end = frame(f"stage{stage}_layer{layer}", f"layer {layer}")
            yield from (f"    {inner}", *(f"      {node(n)}" for n in names), f"    {end}")
        yield f"  {closing}"


def _cluster(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph cluster_{identifier} {{ label="{label}"; style=rounded; color="#999999";', "}"


def _subgraph(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph {identifier}["{label}"]', "end"


def _ids(graph: nx.DiGraph) -> dict[str, str]:
    """Plain identifiers, readable and all different."""
    return {name: f"n{i}_{re.sub(r'[^A-Za-z0-9]', '_', name)}" for i, name in enumerate(graph.nodes)}


def _label(graph: nx.DiGraph, name: str) -> str:
    node = graph.nodes[name]
    return f"{node['op']} {node['out_shape']}" if node["kind"] == "input" else str(node["op"])


def _fill(graph: nx.DiGraph, name: str) -> str:
    return f'"{COLOURS[graph.nodes[name]["kind"]]}"'


def _changes_stage(graph: nx.DiGraph, source: str, target: str) -> bool:
    return bool(graph.nodes[source]["stage"] != graph.nodes[target]["stage"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _entities(text: str) -> str:
    """Text in Mermaid's quotes: its own escape is `#` and an entity's name."""
    return html.escape(text).replace("&", "#").replace("\n", " ")
