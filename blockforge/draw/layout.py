"""Where everything stands in the picture of a graph: a column a stage, in it a row a layer.

What arrives at a stage's input (downsampling, long skips) is the head of its column, above the stage's box;
the layers are rows of chips inside the box. Lengths are SVG's user units, y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import networkx as nx

CHAR, CHIP, ROW, GAP, PAD = 6.7, 20.0, 34.0, 12.0, 10.0
"""Width of a character; heights of a chip and of a layer's row; space between rows, and inside boxes."""
HEADER, TITLE, MARGIN, INDEX = 70.0, 56.0, 24.0, 26.0
"""Heights of the picture's title and of a box's; space around; width of a layer's number."""
_LANE, _MAX_LANE, _BETWEEN = 7.0, 130.0, 46.0


@dataclass(frozen=True)
class Box:
    """A rectangle by its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def cx(self) -> float:
        return self.x + self.width / 2

    @property
    def cy(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass
class Column:
    """A stage: the nodes above its box, those in it row by row, and those below it."""

    stage: int
    head: list[list[str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    tail: list[list[str]] = field(default_factory=list)
    titles: tuple[str, ...] = ()
    lane: float = 0.0
    box: Box = Box(0, 0, 0, 0)

    @property
    def chain(self) -> list[list[str]]:
        """All rows from top to bottom."""
        return [*self.head, *self.rows, *self.tail]


@dataclass
class Layout:
    """The columns, and the box of every node (`chips`) and of every layer's row (`frames`)."""

    columns: list[Column]
    chips: dict[str, Box]
    frames: dict[tuple[int, int], Box]
    width: float
    height: float


def lay_out(graph: nx.DiGraph, titles: dict[int, tuple[str, ...]]) -> Layout:
    """Place every node of `graph`. `titles`: lines of text at the top of each stage's box."""
    columns = _columns(graph)
    found = Layout(columns, {}, {}, 0.0, 0.0)
    top = MARGIN + HEADER + GAP + max(len(c.head) for c in columns) * (CHIP + GAP)
    x = MARGIN
    for column in columns:
        column.titles = titles[column.stage]
        column.lane = _lane(graph, column)
        x = _place(graph, column, found, x, top) + _BETWEEN
    found.width = x - _BETWEEN + MARGIN
    found.height = max(b.bottom for b in (*found.chips.values(), *(c.box for c in columns))) + MARGIN
    return found


def _columns(graph: nx.DiGraph) -> list[Column]:
    columns = [Column(s) for s in sorted({n["stage"] for n in graph.nodes.values()} - {None})]
    for name, node in graph.nodes(data=True):
        if node["stage"] is None:
            rows = columns[-1].tail if node["kind"] == "head" else columns[0].head
            rows.append([name])
            continue
        column = columns[node["stage"]]
        rows = column.rows if column.rows or node["layer"] is not None or node["kind"] == "window_in" else column.head
        last = graph.nodes[rows[-1][-1]] if rows else None
        same_layer = node["layer"] is not None and last is not None and last["layer"] == node["layer"]
        joins = node["kind"] == "add" and last is not None and last["kind"] == "skip"
        if same_layer or joins:
            rows[-1].append(name)
        else:
            rows.append([name])
    return columns


def _lane(graph: nx.DiGraph, column: Column) -> float:
    """Space to the right of the box for the curves between its layers."""
    return max((bulge(graph, s, t) for t, s in received(graph, column.stage)), default=0.0)


def received(graph: nx.DiGraph, stage: int) -> list[tuple[str, str]]:
    """(aggregator, source) for every edge between two layers of a stage."""
    pairs = [(n, s) for n, node in graph.nodes(data=True) if _aggregates(node, stage) for s in node["inputs"][1:]]
    return [(n, s) for n, s in pairs if graph.nodes[s]["layer"] is not None]


def _aggregates(node: dict[str, Any], stage: int) -> bool:
    return bool(node["kind"] == "aggregator" and node["stage"] == stage)


def bulge(graph: nx.DiGraph, source: str, target: str) -> float:
    """How far the curve between two layers reaches out: further for layers further apart."""
    distance = graph.nodes[target]["layer"] - graph.nodes[source]["layer"]
    return min(_MAX_LANE, 10 + _LANE * distance)


def _chip_width(graph: nx.DiGraph, name: str) -> float:
    return len(label(graph.nodes[name])) * CHAR + 12


def label(node: dict[str, Any]) -> str:
    """What a chip says."""
    return "+" if node["kind"] == "add" else str(node["op"])


def _row_width(graph: nx.DiGraph, row: list[str]) -> float:
    return sum(_chip_width(graph, n) for n in row) + GAP * (len(row) - 1)


def _place(graph: nx.DiGraph, column: Column, out: Layout, x: float, top: float) -> float:
    """Place a column whose left edge is `x`; returns its right edge."""
    skips = max((_row_width(graph, row) for row in column.head if _is_skip(graph, row)), default=0.0)
    inner = max(_row_width(graph, row) for row in column.rows) + INDEX + 4 * PAD
    inner = max(inner, *(len(t) * CHAR + 2 * PAD for t in column.titles), 2 * skips + PAD)
    bottom = top + TITLE + GAP + len(column.rows) * (ROW + GAP)
    column.box = Box(x + MARGIN, top, inner, bottom - top)
    y = top - len(column.head) * (CHIP + GAP)
    for row in column.head:
        _place_row(graph, row, out, column.box.cx, y, skip=_is_skip(graph, row))
        y += CHIP + GAP
    y = top + TITLE + GAP
    for row in column.rows:
        node = graph.nodes[row[0]]
        middle = column.box.cx
        if node["layer"] is not None:
            frame = Box(column.box.x + PAD, y, column.box.width - 2 * PAD, ROW)
            out.frames[node["stage"], node["layer"]] = frame
            middle = frame.x + INDEX + _row_width(graph, row) / 2
        _place_row(graph, row, out, middle, y + (ROW - CHIP) / 2 - 1, skip=False)
        y += ROW + GAP
    y = bottom + 2 * GAP
    for row in column.tail:
        _place_row(graph, row, out, column.box.cx, y, skip=False)
        y += CHIP + GAP
    return column.box.right + column.lane * 0.75


def _place_row(graph: nx.DiGraph, row: list[str], out: Layout, middle: float, y: float, skip: bool) -> None:
    """Chips side by side around `middle`; of a long skip's row only the sum stands in the middle."""
    widths = [_chip_width(graph, n) for n in row]
    x = middle - (sum(widths) + GAP * (len(row) - 1)) / 2
    if skip:
        x = middle - widths[0] - 2 * GAP - (widths[1] / 2 if len(row) > 1 else 0)
    for i, (name, width) in enumerate(zip(row, widths, strict=True)):
        out.chips[name] = Box(middle - width / 2 if skip and i else x, y, width, CHIP)
        x += width + GAP


def _is_skip(graph: nx.DiGraph, row: list[str]) -> bool:
    return bool(graph.nodes[row[0]]["kind"] == "skip")
