"""Where everything stands in the picture of a graph: a column a stage, in it a row a layer.

What arrives at a stage's input (downsampling, long skips) is the head of its column, above the stage's box;
the layers are rows of chips inside the box. Lengths are SVG's user units, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import HeadSite, ReducingSite, SkipSite, SumSite, WindowSite
from blockforge.compiler.graph.units import Layer, Stage
from blockforge.draw.marks import CHAR, NOWHERE, Box
from blockforge.draw.one_line import members_of
from blockforge.draw.opened_block import is_list
from blockforge.draw.panel import Panel

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

CHIP, ROW, GAP, PAD = 20.0, 34.0, 12.0, 10.0
"""Heights of a chip and of a layer's row; space between rows, and inside boxes."""
HEADER, TITLE, MARGIN, INDEX = 70.0, 56.0, 24.0, 26.0
"""Heights of the picture's title and of a box's; space around; width of a layer's number."""
OPEN_TITLE = 24.0
"""Height of an opened block's name."""
_NAME = 26
"""Characters of a list's name."""
_LANE, _MAX_LANE, _BETWEEN = 7.0, 130.0, 46.0


@dataclass
class Column:
    """A stage: the nodes above its box, those in it row by row, and those below it."""

    stage: Stage
    head: list[list[Node]] = field(default_factory=list)
    rows: list[list[Node]] = field(default_factory=list)
    tail: list[list[Node]] = field(default_factory=list)
    titles: tuple[str, ...] = ()
    left: float = 0.0
    lane: float = 0.0
    box: Box = NOWHERE

    @property
    def chain(self) -> list[list[Node]]:
        """All rows from top to bottom."""
        return [*self.head, *self.rows, *self.tail]


@dataclass
class Layout:
    """The columns, and the box of every node (`chips`) and of every layer's row (`frames`).

    Attributes:
        opened: the blocks that are drawn as their parts, by node; in place of a chip a box with these.
        ways: the main path, as paths' data with roles; None: down each column, and to the next.
    """

    columns: list[Column]
    opened: Mapping[str, Panel]
    chips: dict[str, Box] = field(default_factory=dict)
    frames: dict[str, Box] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0
    ways: list[tuple[str, str]] | None = None

    def size(self, node: Node) -> tuple[float, float]:
        """Width and height of a node's box."""
        panel = self.opened.get(node.name)
        return chip_size(node) if panel is None else open_size(panel, node)

    def row_size(self, row: Sequence[Node]) -> tuple[float, float]:
        """Width and height of a row's boxes together."""
        widths, heights = zip(*map(self.size, row), strict=True)
        return sum(widths) + GAP * (len(row) - 1), max(heights)

    def heights(self, rows: Sequence[Sequence[Node]]) -> float:
        """Of rows outside of boxes, with the space below each."""
        return sum(self.row_size(row)[1] + GAP for row in rows)


def chip_size(node: Node) -> tuple[float, float]:
    return len(chip_text(node)) * CHAR + 12, CHIP


def open_size(panel: Panel, node: Node) -> tuple[float, float]:
    """Of the box of an opened block: its name, and its parts below."""
    return max(panel.width, len(label(node)) * CHAR + 30) + 2 * PAD, panel.height + OPEN_TITLE + PAD


def lay_out(arch: Architecture, titles: dict[int, tuple[str, ...]], opened: Mapping[str, Panel]) -> Layout:
    """Place every node of a network. `titles`: lines of text at the top of each stage's box."""
    columns = _columns(arch)
    layout = Layout(columns, {name: panel for name, panel in opened.items() if not _is_skip([arch.nodes[name]])})
    top = MARGIN + HEADER + GAP + max(layout.heights(c.head) for c in columns)
    x = MARGIN
    for column in columns:
        column.titles = titles[column.stage.index]
        column.lane = max((bulge(s, t) for t, s in received(arch, column.stage)), default=0.0)
        x = _place(column, layout, x, top) + _BETWEEN
    layout.width = x - _BETWEEN + MARGIN
    layout.height = max(b.bottom for b in (*layout.chips.values(), *(c.box for c in columns))) + MARGIN
    return layout


def _columns(arch: Architecture) -> list[Column]:
    columns = [_column(stage) for stage in arch.stages]
    heads = [unit.first for unit in arch.heads.values()]
    columns[0].head[:0] = [[u.first] for u in arch.units if u.stage is None and u.first not in heads]
    columns[-1].tail[:] = [[head] for head in heads]
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


def label(node: Node) -> str:
    """What a node is called: by its op; a list of ops by its place in the network, or in a layer by what is in it."""
    if not is_list(node):
        return node.op
    if isinstance(node.site, ReducingSite | HeadSite):
        return node.name.rpartition(".")[2]
    return members_of(node, _NAME)


def chip_text(node: Node) -> str:
    """What a chip says."""
    return "+" if isinstance(node.site, SumSite) else label(node)


def titles_width(titles: Sequence[str]) -> float:
    """Of a box's titles, the first of which is bold and larger."""
    return max(len(title) * CHAR * (1.0 if i else 1.1) for i, title in enumerate(titles)) + 2 * PAD


def _place(column: Column, out: Layout, x: float, top: float) -> float:
    """Place a column whose left edge is `x`; returns its right edge."""
    column.left = x
    skips = max((out.row_size(row)[0] for row in column.head if _is_skip(row)), default=0.0)
    inner = max((out.row_size(row)[0] for row in column.rows), default=0.0) + INDEX + 4 * PAD
    heads = max((out.row_size(row)[0] for row in (*column.head, *column.tail)), default=0.0)
    column.box = Box(x + MARGIN, top, max(inner, titles_width(column.titles), 2 * skips + PAD), 0)
    if heads > column.box.width + MARGIN:  # what is opened above or below the box is wider than it
        column.box = Box(column.box.x + (heads - column.box.width - MARGIN) / 2, top, column.box.width, 0)
    y = top - out.heights(column.head)
    for row in column.head:
        y = _place_row(row, out, column.box.cx, y) + GAP
    y = top + TITLE + GAP
    for row in column.rows:
        middle, (width, height) = column.box.cx, out.row_size(row)
        if row[0].layer is not None:
            frame = Box(column.box.x + PAD, y, column.box.width - 2 * PAD, height + ROW - CHIP)
            out.frames[row[0].site.unit] = frame
            middle = frame.x + INDEX + width / 2
        y = _place_row(row, out, middle, y + (ROW - CHIP) / 2 - 1) + (ROW - CHIP) / 2 + 1 + GAP
    column.box = Box(column.box.x, top, column.box.width, y - top)
    y += 2 * GAP
    for row in column.tail:
        y = _place_row(row, out, column.box.cx, y) + GAP
    return max(column.box.right, column.box.cx + heads / 2) + column.lane * 0.75


def _place_row(row: list[Node], out: Layout, middle: float, y: float) -> float:
    """Boxes side by side around `middle`; of a long skip's row only the sum stands in the middle. Gives the foot."""
    sizes = [out.size(node) for node in row]
    width, height = out.row_size(row)
    skip = _is_skip(row)
    x = middle - width / 2
    if skip:
        x = middle - sizes[0][0] - 2 * GAP - (sizes[1][0] / 2 if len(row) > 1 else 0)
    for i, (node, (own, high)) in enumerate(zip(row, sizes, strict=True)):
        out.chips[node.name] = Box(middle - own / 2 if skip and i else x, y + (height - high) / 2, own, high)
        x += own + GAP
    return y + height


def _is_skip(row: Sequence[Node]) -> bool:
    return isinstance(row[0].site, SkipSite)
