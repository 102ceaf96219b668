"""What pictures are drawn with: rectangles, text and ways as SVG, and the colours of kinds and roles."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

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
    "other": "#f7f7f7",
    "window_in": "#f7f0b5",
    "window_out": "#f7f0b5",
    "skip": "#f4c6cf",
    "add": "#f4c6cf",
    "head": "#f6d9b8",
}
"""Fill of a node, by its kind."""
EDGES = {"main": "#5a5a5a", "intra": "#8e44ad", "inter": "#c0792a", "skip": "#c0392b"}
"""Colour of an edge, by its role."""
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
CHAR = 6.7
"""Width of a character of 11 units."""
GREY = 'fill="#555"'


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


NOWHERE = Box(0, 0, 0, 0)


def way(*parts: Any) -> str:
    """A path's data: commands and coordinates, to a tenth."""
    return " ".join(part if isinstance(part, str) else f"{part:.1f}" for part in parts)


def path(data: str, role: str) -> str:
    """A line with an arrow at its end."""
    style = 'stroke-width="1.2"' if role == "main" else 'stroke-width="1.3" stroke-opacity="0.8"'
    return f'<path d="{data}" fill="none" stroke="{EDGES[role]}" {style} marker-end="url(#{role})"/>'


def rect(box: Box, style: str) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    return f"<rect {place} {style}/>"


def text(x: float, y: float, said: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(said)}</text>'


def titled(about: str, *marks: str) -> str:
    """Marks that tell something when they are pointed at."""
    return f"<g><title>{html.escape(about)}</title>{''.join(marks)}</g>"


def markers(*roles: str) -> str:
    """The tips of arrows, one a role; without roles of all."""
    shape = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"'
    tips = (
        f'<marker id="{r}" {shape}><path d="M0 0L8 4L0 8z" fill="{c}"/></marker>'
        for r, c in EDGES.items()
        if r in (roles or EDGES)
    )
    return f"<defs>{''.join(tips)}</defs>"
