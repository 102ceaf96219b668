"""Where everything stands in the picture of a graph: a column a stage, in it a row a layer.

What arrives at a stage's input (downsampling, long skips) is the head of its column, above the stage's box;
the layers are rows of chips inside the box. Lengths are SVG's user units, y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import SkipSite, SumSite, WindowSite
from blockforge.compiler.graph.units import Layer, Stage

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

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

    stage: Stage
    head: list[list[Node]] = field(default_factory=list)
    rows: list[list[Node]] = field(default_factory=list)
    tail: list[list[Node]] = field(default_factory=list)
    titles: tuple[str, ...] = ()
    lane: float = 0.0
    box: Box = Box(0, 0, 0, 0)

    @property
    def chain(self) -> list[list[Node]]:
        """All rows from top to bottom."""
        return [*self.head, *self.rows, *self.tail]


@dataclass
class Layout:
    """The columns, and the box of every node (`chips`) and of every layer's row (`frames`)."""

    columns: list[Column]
    chips: dict[str, Box]
    frames: dict[str, Box]
    width: float
    height: float


def lay_out(arch: Architecture, titles: dict[int, tuple[str, ...]]) -> Layout:
    """Place every node of a network. `titles`: lines of text at the top of each stage's box."""
    columns = _columns(arch)
    found = Layout(columns, {}, {}, 0.0, 0.0)
    top = MARGIN + HEADER + GAP + max(len(c.head) for c in columns) * (CHIP + GAP)
    x = MARGIN
    for column in columns:
        column.titles = titles[column.stage.index]
        column.lane = max((bulge(s, t) for t, s in received(arch, column.stage)), default=0.0)
        x = _place(column, found, x, top) + _BETWEEN
    found.width = x - _BETWEEN + MARGIN
    found.height = max(b.bottom for b in (*found.chips.values(), *(c.box for c in columns))) + MARGIN
    return found


def _columns(arch: Architecture) -> list[Column]:
    columns = [_column(stage) for stage in arch.stages]
    outside = [[unit.first] for unit in arch.units if unit.stage is None]
    columns[0].head[:0], columns[-1].tail[:] = outside[:-1], outside[-1:]
    return columns


def _column(stage: Stage) -> Column:
    """What stands before the layers is the head; a sum stands beside the skip that arrives in it."""
    column = Column(stage)
    for unit in stage.units:
        in_box = column.rows or isinstance(unit, Layer) or isinstance(unit.first.site, WindowSite)
        rows = column.rows if in_box else column.head
        if isinstance(unit.first.site, SumSite) and rows and isinstance(rows[-1][-1].site, SkipSite):
            rows[-1].append(unit.first)
        else:
            rows.append(list(unit.nodes))
    return column


def received(arch: Architecture, stage: Stage) -> list[tuple[Node, Node]]:
    """(aggregator, source) for every edge between two layers of a stage."""
    pairs = [(node, arch.nodes[source]) for node in stage.nodes for source in node.sources]
    return [(node, source) for node, source in pairs if source.layer is not None]


def bulge(source: Node, target: Node) -> float:
    """How far the curve between two layers reaches out: further for layers further apart."""
    assert source.layer is not None
    assert target.layer is not None
    return min(_MAX_LANE, 10 + _LANE * (target.layer - source.layer))


def _chip_width(node: Node) -> float:
    return len(label(node)) * CHAR + 12


def label(node: Node) -> str:
    """What a chip says."""
    return "+" if isinstance(node.site, SumSite) else node.op


def _row_width(row: list[Node]) -> float:
    return sum(_chip_width(node) for node in row) + GAP * (len(row) - 1)


def _place(column: Column, out: Layout, x: float, top: float) -> float:
    """Place a column whose left edge is `x`; returns its right edge."""
    skips = max((_row_width(row) for row in column.head if _is_skip(row)), default=0.0)
    inner = max(_row_width(row) for row in column.rows) + INDEX + 4 * PAD
    inner = max(inner, *(len(t) * CHAR + 2 * PAD for t in column.titles), 2 * skips + PAD)
    bottom = top + TITLE + GAP + len(column.rows) * (ROW + GAP)
    column.box = Box(x + MARGIN, top, inner, bottom - top)
    y = top - len(column.head) * (CHIP + GAP)
    for row in column.head:
        _place_row(row, out, column.box.cx, y, skip=_is_skip(row))
        y += CHIP + GAP
    y = top + TITLE + GAP
    for row in column.rows:
        middle = column.box.cx
        if row[0].layer is not None:
            frame = Box(column.box.x + PAD, y, column.box.width - 2 * PAD, ROW)
            out.frames[row[0].site.unit] = frame
            middle = frame.x + INDEX + _row_width(row) / 2
        _place_row(row, out, middle, y + (ROW - CHIP) / 2 - 1, skip=False)
        y += ROW + GAP
    y = bottom + 2 * GAP
    for row in column.tail:
        _place_row(row, out, column.box.cx, y, skip=False)
        y += CHIP + GAP
    return column.box.right + column.lane * 0.75


def _place_row(row: list[Node], out: Layout, middle: float, y: float, skip: bool) -> None:
    """Chips side by side around `middle`; of a long skip's row only the sum stands in the middle."""
    widths = [_chip_width(n) for n in row]
    x = middle - (sum(widths) + GAP * (len(row) - 1)) / 2
    if skip:
        x = middle - widths[0] - 2 * GAP - (widths[1] / 2 if len(row) > 1 else 0)
    for i, (node, width) in enumerate(zip(row, widths, strict=True)):
        out.chips[node.name] = Box(middle - width / 2 if skip and i else x, y, width, CHIP)
        x += width + GAP


def _is_skip(row: list[Node]) -> bool:
    return isinstance(row[0].site, SkipSite)
