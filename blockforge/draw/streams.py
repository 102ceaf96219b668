"""Where everything stands if stages form a graph: to the right along the longest path, downwards by the size of maps.

So a decoder climbs where its encoder came down, streams of several sizes run side by side, and what passes stages by
stays in the lane of its size. A box has at its left a row for each map that it reads, then what joins them, then its
layers; what it gives leaves at its right. Between two columns nothing stands, so that all ways turn there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import WindowSite
from blockforge.compiler.graph.units import Layer, Stage, Unit
from blockforge.draw.layered import longest_paths
from blockforge.draw.layout import (
    CHIP,
    GAP,
    HEADER,
    INDEX,
    MARGIN,
    PAD,
    ROW,
    TITLE,
    Column,
    Layout,
    bulge,
    received,
    titles_width,
)
from blockforge.draw.marks import NOWHERE, Box, way

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture
    from blockforge.draw.panel import Panel

_BETWEEN, _TRACK, _BUS = 56.0, 9.0, 16.0
"""Space between columns; height of a way that passes boxes by; from a map's row to where the maps meet."""


@dataclass
class Cell:
    """A stage, or what stands outside of them: the image, the stem, a head.

    Attributes:
        reads: for each map that it reads the cell that gives it, and the node that takes it.
        joins: what makes one map of them, in order.
        rows: what follows, a row below the other.
    """

    name: str
    stage: Stage | None = None
    units: list[Unit] = field(default_factory=list)
    reads: list[tuple[str, Node]] = field(default_factory=list)
    joins: list[Node] = field(default_factory=list)
    rows: list[list[Node]] = field(default_factory=list)
    box: Box = NOWHERE

    @property
    def last(self) -> Node:
        return self.units[-1].last


def is_graph(arch: Architecture) -> bool:
    """Whether stages are more than a row: one reads another than the one before it, or several."""
    cells = list(_cells(arch).values())
    order = {cell.name: i for i, cell in enumerate(cells)}
    main = [(order[source], order[cell.name]) for cell in cells for source, node in cell.reads if node.kind != "skip"]
    return any(target - source != 1 for source, target in main) or any(
        node.kind == "join" for cell in cells for node in cell.joins
    )


def _cells(arch: Architecture) -> dict[str, Cell]:
    stages = {stage.index: stage for stage in arch.stages}
    cells: dict[str, Cell] = {}
    owner: dict[str, str] = {}
    for unit in arch.units:
        name = f"stage {unit.stage}" if unit.stage is not None else _outside(unit)
        cell = cells.setdefault(name, Cell(name, stages.get(unit.stage) if unit.stage is not None else None))
        cell.units.append(unit)
        for node in unit.nodes:
            owner[node.name] = name
            cell.reads += [(owner[source], node) for source in node.inputs if owner[source] != name]
    for cell in cells.values():
        _arrange(cell)
    return cells


def _outside(unit: Unit) -> str:
    """The cell of a unit without a stage: `head.from_0` and `head.join` are the head's."""
    name, _, last = unit.name.rpartition(".")
    return name if name and (last == "join" or last.startswith("from_")) else unit.name


def _arrange(cell: Cell) -> None:
    reading = {node.name for _, node in cell.reads if _is_port(node)}
    for unit in cell.units:
        starts = not cell.reads and cell.stage is None
        if starts or isinstance(unit, Layer) or isinstance(unit.first.site, WindowSite) or cell.rows:
            cell.rows.append(list(unit.nodes))
        elif unit.first.name not in reading:
            cell.joins.append(unit.first)


def _is_port(node: Node) -> bool:
    """Whether it stands in the row of the map that it reads."""
    return len(node.inputs) == 1 and node.layer is None and not isinstance(node.site, WindowSite)


def lay_out_streams(arch: Architecture, titles: Mapping[int, tuple[str, ...]], opened: Mapping[str, Panel]) -> Layout:
    """Place every node of a network whose stages form a graph; with the ways between them."""
    return _Streams(arch, titles, opened).out


class _Streams:
    def __init__(self, arch: Architecture, titles: Mapping[int, tuple[str, ...]], opened: Mapping[str, Panel]) -> None:
        self.arch, self.titles, self.cells = arch, titles, _cells(arch)
        self.out = Layout([], opened)
        self.out.ways = []
        edges = [(source, cell.name) for cell in self.cells.values() for source, _ in cell.reads]
        self.rank = longest_paths(self.cells, edges)
        self.lane = self._lanes()
        self.tracks: dict[tuple[str, int], int] = {}
        self.grid: dict[tuple[int, int], list[Cell]] = {}
        for cell in self.cells.values():
            self.grid.setdefault((self.rank[cell.name], self.lane[cell.name]), []).append(cell)
        self.routes = {edge: self._lane_of(*edge) for edge in edges if self.rank[edge[1]] - self.rank[edge[0]] > 1}
        self._place()
        for cell in self.cells.values():
            self.out.ways += [(data, "main") for data in self._inside(cell)]
        for cell in self.cells.values():
            for i, (source, node) in enumerate(cell.reads):
                role = "skip" if (source, cell.name) in self.routes else "main"
                self.out.ways.append((self._between(source, cell, i, node), role))

    def _lanes(self) -> dict[str, int]:
        """By the height of the map that a cell gives; what is no stage stands beside those that it is joined with."""
        sides = {name: cell.last.out_shape.height for name, cell in self.cells.items() if cell.stage is not None}
        order = {side: i for i, side in enumerate(sorted(set(sides.values()), reverse=True))}
        lanes = {name: order[side] for name, side in sides.items()}
        for name, cell in self.cells.items():
            if cell.stage is None and cell.reads and cell.reads[0][0] in lanes:
                lanes[name] = lanes[cell.reads[0][0]]
        for name in reversed(self.cells):
            if name not in lanes:
                lanes[name] = min((lanes[c.name] for c in self.cells.values() if name in dict(c.reads)), default=0)
        return lanes

    def _lane_of(self, source: str, target: str) -> tuple[int, bool]:
        """The lane in which a way passes columns by, and whether it needs a track of its own there."""
        between = range(self.rank[source] + 1, self.rank[target])
        for name in (source, target):
            if not any((column, self.lane[name]) in self.grid for column in between):
                return self.lane[name], False
        lane = self.lane[source]
        self.tracks.setdefault((source, lane), sum(known == lane for _, known in self.tracks))
        return lane, True

    # --- places

    def _place(self) -> None:
        sizes = {name: self._size(cell) for name, cell in self.cells.items()}
        columns, x = [0.0] * (max(self.rank.values()) + 1), MARGIN
        widths = [max(sizes[n][0] for n in self.cells if self.rank[n] == r) for r in range(len(columns))]
        for i, width in enumerate(widths):
            columns[i] = x
            x += width + _BETWEEN
        self.columns, self.widths = columns, widths
        self.lane_tops, y = {}, MARGIN + HEADER + GAP
        for lane in range(max(self.lane.values()) + 1):
            self.lane_tops[lane] = y
            y += _TRACK * sum(known == lane for _, known in self.tracks) + GAP
            stacks = {key: cells for key, cells in self.grid.items() if key[1] == lane}
            for (rank, _), cells in stacks.items():
                top = y
                for cell in cells:
                    top += TITLE + GAP if cell.stage is None else 0  # beside the rows of stages
                    own, height = sizes[cell.name]
                    own = widths[rank] if cell.stage is not None else own
                    cell.box = Box(columns[rank] + (widths[rank] - own) / 2, top, own, height)
                    self._fill(cell)
                    top += height + 2 * GAP
            y = max((cell.box.bottom for cells in stacks.values() for cell in cells), default=y) + 2 * GAP
        self.out.width, self.out.height = x - _BETWEEN + MARGIN, y + MARGIN

    def _ports(self, cell: Cell) -> list[tuple[float, float]]:
        """Width and height of each row of a map that is read; nothing in it where the map is read as it is."""
        return [self.out.size(node) if _is_port(node) else (0.0, CHIP) for _, node in cell.reads]

    def _size(self, cell: Cell) -> tuple[float, float]:
        ports, rows = self._ports(cell), [self.out.row_size(row) for row in cell.rows]
        joins = [self.out.size(node) for node in cell.joins]
        width = max((w for w, _ in ports), default=0.0)
        if joins or rows:
            width += _BUS + max((w / 2 for w, _ in joins), default=0.0)
        around = INDEX + 4 * PAD if cell.stage is not None else 0.0
        inside = [w + around for w, _ in rows]
        height = sum(h + GAP / 2 for _, h in ports) + sum(h + GAP for _, h in joins)
        height += sum(h + ROW - CHIP + GAP for _, h in rows)
        if cell.stage is None:
            return max([width, *inside, *(w for w, _ in joins)]), height
        said = titles_width(self.titles[cell.stage.index])
        lane = max((bulge(s, t) for t, s in received(self.arch, cell.stage)), default=0.0) * 0.75
        return max([width + 2 * PAD, *inside, said]) + lane, height + TITLE + GAP

    def _fill(self, cell: Cell) -> None:
        box, out, y = cell.box, self.out, cell.box.y
        if cell.stage is not None:
            column = Column(cell.stage, rows=cell.rows, titles=self.titles[cell.stage.index], box=box)
            out.columns.append(column)
            y += TITLE + GAP
        x = box.x + (PAD if cell.stage is not None else 0)
        for (_, node), (width, height) in zip(cell.reads, self._ports(cell), strict=True):
            if width:
                out.chips[node.name] = Box(x, y, width, height)
            y += height + GAP / 2
        for node in cell.joins:
            width, height = out.size(node)
            out.chips[node.name] = Box(self._bus(cell) - width / 2, y, width, height)
            y += height + GAP
        for row in cell.rows:
            width, height = out.row_size(row)
            left = box.cx - width / 2
            if row[0].layer is not None:
                frame = Box(box.x + PAD, y, box.width - 2 * PAD, height + ROW - CHIP)
                out.frames[row[0].site.unit] = frame
                left = frame.x + INDEX
            for node in row:
                own, high = out.size(node)
                out.chips[node.name] = Box(left, y + (ROW - CHIP) / 2 - 1 + (height - high) / 2, own, high)
                left += own + GAP
            y += height + ROW - CHIP + GAP

    def _bus(self, cell: Cell) -> float:
        """Where the maps that a cell reads come together."""
        width = max((w for w, _ in self._ports(cell)), default=0.0)
        left = cell.box.x + (PAD if cell.stage is not None else 0) + width + _BUS
        joins = max((self.out.size(node)[0] / 2 for node in cell.joins), default=0.0)
        return max(min(cell.box.cx, cell.box.right - joins), left)

    # --- ways

    def _port(self, cell: Cell, i: int) -> tuple[float, float]:
        """Where the i-th map enters: at a chip, or at the border."""
        _, node = cell.reads[i]
        if _is_port(node):
            chip = self.out.chips[node.name]
            return chip.x, chip.cy
        y = cell.box.y + (TITLE + GAP if cell.stage is not None else 0)
        y += sum(height + GAP / 2 for _, height in self._ports(cell)[:i]) + CHIP / 2
        return cell.box.x, y

    def _exit(self, cell: Cell) -> Box:
        """What gives the cell's map."""
        if cell.rows:
            return self._anchor(cell.rows[-1])
        return self.out.chips[cell.last.name]

    def _anchor(self, row: list[Node]) -> Box:
        return self.out.frames.get(row[0].site.unit) or self.out.chips[row[-1].name]

    def _inside(self, cell: Cell) -> Iterator[str]:
        bus = self._bus(cell)
        below = [*(self.out.chips[node.name] for node in cell.joins), *(self._anchor(row) for row in cell.rows)]
        if cell.reads and below:
            for i, (_, node) in enumerate(cell.reads):
                x, y = self._port(cell, i)
                start = self.out.chips[node.name].right if _is_port(node) else x
                yield way("M", start, y, "H", bus - 6, "Q", bus, y, bus, y + 6, "V", below[0].y - 1)
        for a, b in pairwise(below):
            x = b.cx if b.cx != a.cx and a.x < b.cx < a.right else a.cx
            yield way("M", x, a.bottom, "V", b.y - 1)
        for row in cell.rows:
            for first, second in pairwise(row):
                a, b = self.out.chips[first.name], self.out.chips[second.name]
                yield way("M", a.right, a.cy, "H", b.x - 1)

    def _between(self, source: str, cell: Cell, i: int, node: Node) -> str:
        """From what gives a map to the row of the cell that reads it."""
        start, (x, y) = self._exit(self.cells[source]), self._port(cell, i)
        first, last = self.rank[source], self.rank[cell.name]
        out = self.columns[first] + self.widths[first]
        said: list[str | float] = ["M", start.right, start.cy, "H", out]
        at, height = out, start.cy
        if (route := self.routes.get((source, cell.name))) is not None:
            lane, needs_track = route
            level = start.cy if lane == self.lane[source] else y
            if needs_track:
                level = self.lane_tops[lane] + _TRACK * (self.tracks[source, lane] + 0.5)
            turn = self.columns[first + 1] - PAD
            said += ["C", (at + turn) / 2, height, (at + turn) / 2, level, turn, level]
            at, height = self.columns[last - 1] + self.widths[last - 1] + PAD, level
            said += ["H", at]
        middle = (at + self.columns[last]) / 2
        said += ["C", middle, height, middle, y, self.columns[last] - 4, y, "H", x - 1]
        return way(*said)
