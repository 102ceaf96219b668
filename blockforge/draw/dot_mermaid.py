"""The graph as text for other drawing tools: graphviz's DOT and Mermaid. `svg` draws without either.

An opened block is a box of its own (a cluster, a subgraph) with its parts in it; what reads the block reads the last.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Edge, Node
from blockforge.compiler.graph.sites import ImageSite
from blockforge.compiler.graph.units import Layer, Stage
from blockforge.draw.layout import label
from blockforge.draw.marks import COLOURS, EDGES
from blockforge.draw.opened_block import Group, groups_of, opens, pieces_of

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

Draw = Callable[[str, str, str], str]
"""Identifier, text and kind -> a node's line."""
Frame = Callable[[str, str], tuple[str, str]]
"""Identifier and text -> the lines that open and close what is around nodes."""


def to_dot(arch: Architecture, opened: Collection[str] = ()) -> str:
    """The graph in graphviz's language: a box a stage, in it a box a layer. `opened`: nodes drawn as their parts."""
    text = _Text(arch, opened)
    lines = [
        f"digraph {_quoted(arch.name)} {{",
        f'  graph [label={_quoted(arch.name)}, labelloc=t, fontname="Helvetica", compound=true];',
        '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=10, color="#777777"];',
        '  edge [fontname="Helvetica", fontsize=8];',
    ]

    def box(identifier: str, label: str, kind: str) -> str:
        return f'{identifier} [label={_quoted(label)}, fillcolor="{COLOURS[kind]}"];'

    lines += _nested(arch, lambda node: text.node(node, box, _cluster), _cluster)
    for source, target, role, shape in text.edges():
        style = "" if role == "main" else ", style=dashed, constraint=false"
        said = f", label={_quoted(shape)}" if shape else ""
        lines.append(f'  {source} -> {target} [color="{EDGES[role]}"{style}{said}];')
    return "\n".join([*lines, "}", ""])


def to_mermaid(arch: Architecture, opened: Collection[str] = ()) -> str:
    """The graph as a Mermaid flowchart: a subgraph a stage, in it a subgraph a layer. `opened`: nodes drawn as their
    parts."""
    text = _Text(arch, opened)
    kinds: dict[str, None] = {}

    def box(identifier: str, label: str, kind: str) -> str:
        kinds[kind] = None
        return f'{identifier}["{_entities(label)}"]:::{kind}'

    lines = ["flowchart TB", *_nested(arch, lambda node: text.node(node, box, _subgraph), _subgraph)]
    for source, target, role, shape in text.edges():
        said = f'|"{shape}"|' if shape else ""
        lines.append(f"  {source} {'-->' if role == 'main' else '-.->'}{said} {target}")
    lines += [f"  classDef {kind} fill:{COLOURS[kind]},stroke:#777,color:#222" for kind in kinds]
    return "\n".join([*lines, ""])


class _Text:
    """What both languages say, in either's words. Nodes have plain identifiers, readable and all different."""

    def __init__(self, arch: Architecture, opened: Collection[str]) -> None:
        self.arch = arch
        self.ids = {name: f"n{i}_{re.sub(r'[^A-Za-z0-9]', '_', name)}" for i, name in enumerate(arch.nodes)}
        known = ((name, arch.nodes[name]) for name in opened)
        self.boxes = {name: groups_of(pieces_of(node, arch.backend)) for name, node in known if opens(node)}

    def node(self, node: Node, box: Draw, frame: Frame) -> list[str]:
        """A line, or an opened block's frame and what is in it."""
        if (boxes := self.boxes.get(node.name)) is None:
            return [box(self.ids[node.name], _label(node), node.kind)]
        opening, closing = frame(f"{self.ids[node.name]}_parts", label(node))
        first = [box(self._part(node.name, boxes[0].name), boxes[0].gives, "input")]
        inner = [box(self._part(node.name, b.name), _said(b), b.kind) for b in boxes[1:]]
        return [opening, *(f"  {line}" for line in first + inner), closing]

    def edges(self) -> Iterator[tuple[str, str, str, str]]:
        """Source, target, role, and the map where it is worth telling."""
        for edge in self.arch.edges:
            label = str(edge.shape) if _changes_stage(self.arch, edge) else ""
            yield self._end(edge.source, -1), self._end(edge.target, 0), edge.role, label
        for name, boxes in self.boxes.items():
            for source, target in ((source, box.name) for box in boxes for source in dict.fromkeys(box.inputs)):
                yield self._part(name, source), self._part(name, target), "main", ""

    def _end(self, name: str, which: int) -> str:
        boxes = self.boxes.get(name)
        return self.ids[name] if boxes is None else self._part(name, boxes[which].name)

    def _part(self, node: str, box: str) -> str:
        number = next(i for i, known in enumerate(self.boxes[node]) if known.name == box)
        return f"{self.ids[node]}_{number}"


def _said(box: Group) -> str:
    return f"{', '.join(box.lines)} {box.gives}"


def _nested(arch: Architecture, node: Callable[[Node], list[str]], frame: Frame) -> Iterator[str]:
    """The nodes, each inside the frames of its stage and layer; a frame opens where it first occurs."""
    stages = {stage.index: stage for stage in arch.stages}
    for unit in arch.units:
        if unit.stage is None:
            yield from (f"  {line}" for line in node(unit.first))
        elif (stage := stages.pop(unit.stage, None)) is not None:
            yield from _framed(stage, arch.plan.stages[stage.index].title, node, frame)


def _framed(stage: Stage, title: str, node: Callable[[Node], list[str]], frame: Frame) -> Iterator[str]:
    opening, closing = frame(f"stage{stage.index}", title)
    yield f"  {opening}"
    for unit in stage.units:
        if isinstance(unit, Layer):
            inner, end = frame(f"stage{stage.index}_layer{unit.index}", f"layer {unit.index}")
            lines = (f"      {line}" for n in unit.nodes for line in node(n))
            yield from (f"    {inner}", *lines, f"    {end}")
        else:
            yield from (f"    {line}" for line in node(unit.first))
    yield f"  {closing}"


def _cluster(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph cluster_{identifier} {{ label={_quoted(label)}; style=rounded; color="#999999";', "}"


def _subgraph(identifier: str, label: str) -> tuple[str, str]:
    return f'subgraph {identifier}["{_entities(label)}"]', "end"


def _label(node: Node) -> str:
    return f"{node.op} {node.out_shape}" if isinstance(node.site, ImageSite) else label(node)


def _changes_stage(arch: Architecture, edge: Edge) -> bool:
    return arch.nodes[edge.source].stage != arch.nodes[edge.target].stage


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _entities(text: str) -> str:
    """Text in Mermaid's quotes: its own escape is `#` and an entity's name."""
    return html.escape(text).replace("&", "#").replace("\n", " ")
