"""A picture of an architecture as SVG, without other programs. `layout` says where things stand."""

from __future__ import annotations

import html
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import SkipSite
from blockforge.compiler.graph.units import Stage
from blockforge.draw.cards import STYLE, Cards, frame
from blockforge.draw.layout import (
    MARGIN,
    OPEN_TITLE,
    PAD,
    TITLE,
    Column,
    Layout,
    bulge,
    chip_text,
    label,
    lay_out,
    received,
)
from blockforge.draw.marks import CHAR, COLOURS, FONT, GREY, NOWHERE, Box, markers, path, rect, text, titled, way
from blockforge.draw.one_line import in_one_line
from blockforge.draw.opened_block import groups_of, opens, pieces_of
from blockforge.draw.panel import Panel
from blockforge.draw.streams import is_graph, lay_out_streams
from blockforge.draw.summary import compact
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from blockforge.compiler.architecture import Architecture
    from blockforge.spec.plan import Stage as PlannedStage

_KINDS = {
    "stem": "stem, downsample, head",
    "mixer": "mixes positions",
    "ffn": "mixes channels",
    "part": "block of parts: opens",
    "join": "join",
    "aggregator": "aggregator",
    "norm": "norm, activation",
    "window_in": "windows",
    "skip": "long skip",
}
_ROLES = {"intra": "from an earlier layer", "inter": "from the stage's input", "skip": "long skip"}
_HEAT = "#e8933a"
_WORK = "MACs of the layer"
_BEND = 8.0


def to_svg(
    arch: Architecture,
    heat: Mapping[str, float] | None = None,
    opened: Collection[str] = (),
    heat_is: str = "of the time",
) -> str:
    """Stages from left to right, their layers from top to bottom. Equal architectures give equal pictures.

    A block that is made of parts opens in a browser where it is pressed, see `cards`.

    Args:
        heat: node -> share of something, such as time; blocks are then coloured by it, not by their kind.
        heat_is: what that is a share of, in words.
        opened: nodes whose blocks are drawn as their parts; what nothing is known to be inside of stays as it is.
    """
    nodes = [node for node in arch.nodes.values() if opens(node)]
    panels = {node.name: Panel(groups_of(pieces_of(node, arch.backend))) for node in nodes}
    shown = {name: panel for name, panel in panels.items() if name in opened}
    titles = {stage.index: _titles(stage, arch.plan.stages[stage.index]) for stage in arch.stages}
    layout = (lay_out_streams if is_graph(arch) else lay_out)(arch, titles, shown)
    drawing = _Drawing(arch, layout, heat, heat_is)
    legend, right = drawing.legend(panels)
    cards = {name: panel for name, panel in panels.items() if name not in layout.opened}
    width = max(layout.width, right, 2 * MARGIN + len(arch.totals) * CHAR * 1.1, *_needs(cards, 0))
    page = Box(0, 0, round(width), round(max(layout.height + 2 * MARGIN, *_needs(cards, 1))))
    drawing.cards = Cards(cards, page)
    parts = [
        *drawing.header(),
        *drawing.boxes(),
        *drawing.flow(),
        *drawing.long_edges(),
        *drawing.chips(),
        *legend,
        *(drawing.cards.card(arch.nodes[name], layout.chips[name]) for name in cards),
    ]
    size = f'width="{page.width}" height="{page.height}" viewBox="0 0 {page.width} {page.height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" font-size="11">'
    start = [head, STYLE, markers(), *drawing.cards.definitions(), rect(page, 'fill="#ffffff"')]
    return "\n".join([*start, *parts, "</svg>", ""])


def framed_svg(arch: Architecture) -> str:
    """The picture inside an HTML page, where it is a document of its own."""
    svg = to_svg(arch)
    match = re.search(r'height="([0-9]+)"', svg)
    height = min(int(match[1]) if match else 600, 900) + 20
    return f'<iframe srcdoc="{html.escape(svg)}" width="100%" height="{height}" style="border:0"></iframe>'


def _needs(cards: Mapping[str, Panel], axis: int) -> list[float]:
    """Sides that a page must have for cards to lie on it."""
    return [0.0, *((panel.width + 6 * PAD, panel.height + OPEN_TITLE + 4 * PAD)[axis] for panel in cards.values())]


def _titles(stage: Stage, plan: PlannedStage) -> tuple[str, ...]:
    params, macs = (format_count(total) for total in (stage.params, stage.macs))
    pattern = compact([layer.block for layer in stage.layers])
    called = plan.title
    return f"{called}: {stage.end.last.out_shape}", pattern, f"{params} params, {macs} MACs"


class _Drawing:
    """Writes the parts of one picture."""

    def __init__(self, arch: Architecture, layout: Layout, heat: Mapping[str, float] | None, heat_is: str) -> None:
        self.arch, self.layout, self.heat, self.heat_is = arch, layout, heat, heat_is
        self.cards = Cards({}, NOWHERE)

    def header(self) -> list[str]:
        """What the picture shows, and what it costs."""
        size = self.arch.plan.input
        image = f"image {size.channels}x{size.size[0]}x{size.size[1]}"
        return [
            text(MARGIN, MARGIN + 14, self.arch.name, 'font-size="18" font-weight="bold"'),
            text(MARGIN, MARGIN + 32, self.arch.totals, 'font-size="12"'),
            text(MARGIN, MARGIN + 48, f"{image}; 1 MAC = 1 multiply-add, the FLOPs of papers", GREY),
        ]

    def boxes(self) -> list[str]:
        """Stages and layers; a bar compares the layers' work."""
        parts = []
        for column in self.layout.columns:
            box = column.box
            parts.append(rect(box, 'rx="8" fill="#fafafa" stroke="#b5b5b5"'))
            parts.append(f'<path d="{way("M", box.x, box.y + TITLE, "H", box.right)}" stroke="#dcdcdc"/>')
            for i, title in enumerate(column.titles):
                style = 'font-size="12" font-weight="bold"' if i == 0 else GREY
                parts.append(text(box.x + 10, box.y + 18 + 15 * i, title, style))
        layers = [layer for stage in self.arch.stages for layer in stage.layers]
        most = max((layer.macs for layer in layers), default=0) or 1
        for layer in layers:
            frame = self.layout.frames[layer.name]
            parts.append(rect(frame, 'rx="5" fill="#ffffff" stroke="#c8c8c8"'))
            parts.append(text(frame.x + 5, frame.cy + 4, str(layer.index), 'fill="#888" font-size="10"'))
            width = (frame.width - 8) * layer.macs / most
            parts.append(rect(Box(frame.x + 4, frame.bottom - 3, width, 2), f'fill="{_HEAT}"'))
        return parts

    def flow(self) -> list[str]:
        """The main path: down each column, and from its end to the head of the next."""
        if self.layout.ways is not None:
            return [path(data, role) for data, role in self.layout.ways]
        parts = []
        for column in self.layout.columns:
            title = Box(column.box.x, column.box.y, column.box.width, TITLE)  # path ends there, goes on below
            head = [*(self._anchor(row) for row in self._main(column)), title]
            below = [title, *(self._anchor(row) for row in (*column.rows, *column.tail))]
            for a, b in (*pairwise(head), *pairwise(below)):
                parts.append(path(way("M", a.cx, a.bottom, "V", b.y - 1), "main"))
            parts += [self._inside(a, b) for row in column.chain for a, b in pairwise(row)]
        for before, after in pairwise(self.layout.columns):
            start = self._anchor(before.rows[-1]) if before.rows else before.box
            end = self._anchor(self._main(after)[0]) if self._main(after) else after.box
            between = after.left - 6
            parts.append(path(_around(start, before.box.bottom + 14, between, end), "main"))
            shape = str(before.stage.end.last.out_shape)
            parts.append(text(between + 10, end.y - 19, shape, f'{GREY} font-size="10"'))
        return parts

    def long_edges(self) -> list[str]:
        """Edges that pass layers or stages by."""
        parts = []
        for column in self.layout.columns:
            parts += [self._beside(source, target) for target, source in received(self.arch, column.stage)]
        for node in self.arch.nodes.values():
            if isinstance(node.site, SkipSite) and self.layout.ways is None:
                parts.append(self._across(self.arch.nodes[node.inputs[0]], node))
            sources = [self.arch.nodes[s] for s in node.sources]
            parts += [self._from_input(source, node) for source in sources if source.layer is None]
        return parts

    def chips(self) -> list[str]:
        """The blocks. Pointing at one shows its parameters and cost."""
        return [self._chip(self.arch.nodes[name], box) for name, box in self.layout.chips.items()]

    def legend(self, panels: Mapping[str, Panel]) -> tuple[list[str], float]:
        """What the colours mean, of those that occur; and where that ends on the right. `panels`: what opens."""
        x, y = MARGIN, self.layout.height
        parts = []
        kinds = {node.kind for node in self.arch.nodes.values()}
        inside = {box.kind for panel in panels.values() for box in panel.boxes.values()}
        for kind, said in _KINDS.items():
            if kind in kinds | inside and self.heat is None:
                parts.append(rect(Box(x, y, 14, 14), f'rx="3" fill="{COLOURS[kind]}" stroke="#999"'))
                parts.append(text(x + 20, y + 11, said, GREY))
                x += 34 + len(said) * CHAR
        parts += [rect(Box(x, y + 6, 16, 2), f'fill="{_HEAT}"'), text(x + 22, y + 11, _WORK, GREY)]
        x += 36 + len(_WORK) * CHAR
        roles: set[str] = {edge.role for edge in self.arch.edges} | {role for _, role in self.layout.ways or ()}
        for role, said in _ROLES.items():
            if role in roles:
                parts += [path(way("M", x, y + 7, "H", x + 22), role), text(x + 30, y + 11, said, GREY)]
                x += 44 + len(said) * CHAR
        return parts, x + MARGIN

    # --- pieces

    def _frame(self, node: Node) -> Box:
        """The layer that a node is part of."""
        return self.layout.frames[node.site.unit]

    def _anchor(self, row: list[Node]) -> Box:
        """What the main path joins: a layer's frame, or the chip that stands in the column's middle."""
        return self.layout.frames.get(row[0].site.unit) or self.layout.chips[row[-1].name]

    def _main(self, column: Column) -> list[list[Node]]:
        """The rows above a column's box, without long skips that only pass through."""
        return [row for row in column.head if not isinstance(row[-1].site, SkipSite)]

    def _inside(self, a: Node, b: Node) -> str:
        start, end = self.layout.chips[a.name], self.layout.chips[b.name]
        role = "skip" if isinstance(a.site, SkipSite) else "main"
        return path(way("M", start.right, start.cy, "H", end.x - 1), role)

    def _beside(self, source: Node, target: Node) -> str:
        """A curve at the right of the column, from a layer to a later one."""
        start, end = self._frame(source), self._frame(target)
        x, leaves, arrives = start.right + bulge(source, target), start.cy + 5, end.cy - 5
        curve = ("C", x, leaves, x, arrives, end.right + 2, arrives)
        return path(way("M", start.right, leaves, *curve), "intra")

    def _from_input(self, source: Node, target: Node) -> str:
        """A line at the left of the column, from the stage's input to a layer."""
        start, end, r = self.layout.chips[source.name], self._frame(target), _BEND
        x = next(column.box.x for column in self.layout.columns if column.stage.index == target.stage) - 10
        down = ("H", x + r, "Q", x, start.cy, x, start.cy + r, "V", end.cy - r)
        return path(way("M", start.x, start.cy, *down, "Q", x, end.cy, x + r, end.cy, "H", end.x - 2), "inter")

    def _across(self, source: Node, target: Node) -> str:
        """A long skip, from one column's head to the next; under the sum beside a skip's chip."""
        start, end = self.layout.chips[source.name], self.layout.chips[target.name]
        x, y, data = start.right, start.cy, way("M", start.right, start.cy)
        if isinstance(source.site, SkipSite):
            x, y = start.right + 4 * _BEND, start.bottom + 5
            edge = start.right - 10
            data = way("M", edge, start.bottom, "Q", edge, y, start.right, y, "H", x)
        middle = (x + end.x) / 2
        return path(data + way("C", middle, y, middle, end.cy, end.x - 1, end.cy), "skip")

    def _chip(self, node: Node, box: Box) -> str:
        values = ", ".join(f"{k}={v}" for k, v in node.parameters.items() if node.written_out is None)
        about = (
            f"{node.name}\n{node.op}({values})\n{node.shapes.in_shape} -> {node.out_shape}\n"
            f"{format_count(node.params)} params, {format_count(node.macs)} MACs, "
            f"{format_bytes(node.costs.activation_bytes)} output"
        )
        if opens(node):
            about += f"\n{in_one_line(groups_of(pieces_of(node, self.arch.backend)))}"
        fill = COLOURS[node.kind]
        if self.heat is not None:
            share = self.heat.get(node.name, 0.0)  # the image has none
            about += f"\n{share:.1%} {self.heat_is}"
            fill = _warm(share / max(self.heat.values()))
        if (panel := self.layout.opened.get(node.name)) is not None:
            inner = panel.draw(box.x + (box.width - panel.width) / 2, box.y + OPEN_TITLE)
            return "".join([titled(about, *frame(box, label(node))), *inner])
        shape = rect(box, f'rx="4" fill="{fill}" stroke="#888"')
        chip = titled(about, shape, text(box.cx, box.bottom - 6, chip_text(node), 'text-anchor="middle"'))
        return self.cards.link(node, chip) if node.name in self.cards.panels else chip


def _warm(share: float) -> str:
    """From white to red."""
    return f"#ff{round(255 - 165 * share):02x}{round(255 - 205 * share):02x}"


def _around(start: Box, below: float, between: float, end: Box) -> str:
    """From the foot of one column, up between the columns, into the head of the next."""
    r, above, x, to = _BEND, end.y - 15, start.cx, end.cx
    foot = ("M", x, start.bottom, "V", below - r, "Q", x, below, x + r, below, "H", between - r)
    up = ("Q", between, below, between, below - r, "V", above + r, "Q", between, above, between + r, above)
    return way(*foot, *up, "H", to - r, "Q", to, above, to, above + r, "V", end.y - 1)
