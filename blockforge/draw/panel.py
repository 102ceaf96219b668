"""An opened block as a picture: its pieces in rows from top to bottom, those that read one map side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from blockforge.draw.layered import Placed, Point, place
from blockforge.draw.marks import CHAR, COLOURS, FONT, GREY, Box, markers, path, rect, text, titled, way
from blockforge.draw.opened_block import INPUT, Group

_LINE, _PAD, _PORT = 14.0, 5.0, 7.0
_END = "output"
_LABEL = f'{GREY} font-size="9.5" paint-order="stroke" stroke="#fff" stroke-width="3"'


class Panel:
    """The pieces of a block, laid out. `width`, `height`: of the picture, which `draw` puts anywhere."""

    def __init__(self, boxes: Sequence[Group]) -> None:
        last = boxes[-1]
        self.boxes = {box.name: box for box in boxes}
        self.edges = [(source, box.name) for box in boxes for source in dict.fromkeys(box.inputs)]
        self.lines = {box.name: box.lines for box in boxes} | {INPUT: (boxes[0].gives,), _END: (last.gives,)}
        self.edges.append((last.name, _END))
        sizes = {name: _size(lines) for name, lines in self.lines.items()}
        self.placed: Placed = place(sizes, self.edges)
        self.at = {name: Box(x, y, *sizes[name]) for name, (x, y) in self.placed.corners.items()}
        labels = [self.at[name].cx + len(label) * 6 + 8 for name, label in self._changes().items()]
        self.width = max([self.placed.width, *labels])
        self.height = self.placed.height

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Panel) and self.boxes == other.boxes

    def __hash__(self) -> int:
        return hash(tuple(self.boxes))

    def draw(self, x: float, y: float) -> list[str]:
        """The picture as SVG, its left upper corner at (x, y)."""
        drawn = [f'<g transform="translate({x:.1f} {y:.1f})">']
        drawn += [self._way(source, target) for source, target in self.edges]
        drawn += [self._box(name) for name in self.lines]
        drawn += [
            text(self.at[name].cx + 5, self.at[name].bottom + 11, label, _LABEL)
            for name, label in self._changes().items()
        ]
        return [*drawn, "</g>"]

    def _changes(self) -> dict[str, str]:
        """The maps that differ from what is read, by the box that gives them; the last is told at the end."""
        given = {name: box.gives for name, box in self.boxes.items()}
        return {
            name: box.gives
            for name, box in list(self.boxes.items())[1:-1]
            if {given[source] for source in box.inputs} != {box.gives}
        }

    def _box(self, name: str) -> str:
        box, lines, here = self.boxes.get(name), self.lines[name], self.at[name]
        ends = box is None or name == INPUT
        fill = "#ffffff" if ends else COLOURS[box.kind if box is not None else INPUT]
        corner = min(here.height / 2, 12) if box is not None and box.kind == "join" else 4
        marks = [rect(here, f'rx="{corner:.0f}" fill="{fill}" stroke="{"#ccc" if ends else "#888"}"')]
        for i, line in enumerate(lines):
            style = 'text-anchor="middle"' + (f' {GREY} font-size="10"' if ends or i else "")
            marks.append(text(here.cx, here.y + _PAD + 10 + i * _LINE, line, style))
        about = "\n\n".join(piece.about for piece in box.pieces if piece.about) if box is not None else ""
        return titled(about, *marks) if about else "".join(marks)

    def _way(self, source: str, target: str) -> str:
        points = list(self.placed.ways[source, target])
        arriving = sorted(self.placed.ways[s, target][-2][0] for s, t in self.edges if t == target)
        ports = min(_PORT * 2, self.at[target].width / (len(arriving) + 1))
        shift = (arriving.index(points[-2][0]) - (len(arriving) - 1) / 2) * ports
        points[-1] = points[-1][0] + shift, points[-1][1] - 1
        return path(curve(points), "main")


def alone(boxes: Sequence[Group]) -> str:
    """A file with nothing but an opened block."""
    panel = Panel(boxes)
    page = Box(0, 0, round(panel.width + 4 * _PAD), round(panel.height + 4 * _PAD))
    size = f'width="{page.width}" height="{page.height}" viewBox="0 0 {page.width} {page.height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" font-size="11">'
    drawn = panel.draw(2 * _PAD, 2 * _PAD)
    return "\n".join([head, markers("main"), rect(page, 'rx="6" fill="#ffffff"'), *drawn, "</svg>", ""])


def curve(points: Sequence[Point]) -> str:
    """A way down through points: straight where they are below each other, else turning from and to the vertical."""
    said: list[str | float] = ["M", *points[0]]
    for (x, y), (to, down) in pairwise(points):
        middle = (y + down) / 2
        said += ["V", down] if abs(to - x) < 0.5 else ["C", x, middle, to, middle, to, down]
    return way(*said)


def _size(lines: Sequence[str]) -> tuple[float, float]:
    return max(max(map(len, lines)) * CHAR + 14, 34.0), len(lines) * _LINE + 2 * _PAD - 1
