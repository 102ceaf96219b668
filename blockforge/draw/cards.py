"""Blocks that open where they are pressed: their parts lie over the picture until they are closed.

Nothing runs in the file: a block is a link to its card, which shows while it is the target of the page's address. So it
works in any browser, with the keyboard too; a program that only draws leaves the cards out.
"""

from __future__ import annotations

from collections.abc import Mapping

from blockforge.compiler.graph.nodes import Node
from blockforge.draw.layout import GAP, OPEN_TITLE, PAD, label, open_size
from blockforge.draw.marks import GREY, Box, rect, text
from blockforge.draw.panel import Panel

STYLE = (
    "<style>a{cursor:pointer}a:focus-visible{outline:2px solid #1a5fb4}"
    ".card:target{display:inline;visibility:visible}</style>"
)


class Cards:
    """The cards of a picture: what they show is written once for all blocks that are equal."""

    def __init__(self, panels: Mapping[str, Panel], page: Box) -> None:
        self.panels, self.page = panels, page
        self.shared: dict[Panel, str] = {}
        for panel in panels.values():
            self.shared.setdefault(panel, f"parts{len(self.shared)}")
        self.numbers = {name: i for i, name in enumerate(panels)}

    def link(self, node: Node, chip: str) -> str:
        """A block's chip, to be pressed."""
        return f'<a href="#open{self.numbers[node.name]}" aria-label="open {label(node)}">{chip}</a>'

    def definitions(self) -> list[str]:
        """What several cards show."""
        drawn = (f'<g id="{key}">{"".join(panel.draw(0, 0))}</g>' for panel, key in self.shared.items())
        return ["<defs>", *drawn, "</defs>"] if self.shared else []

    def card(self, node: Node, chip: Box) -> str:
        """The parts of a node, beside its chip if there is room."""
        panel = self.panels[node.name]
        width, height = open_size(panel, node)
        x = max(min(chip.x, self.page.width - width - GAP), GAP)
        y = max(min(chip.y, self.page.height - height - GAP), GAP)
        here = Box(x, y, width, height)
        inner = x + (width - panel.width) / 2
        return "".join([
            f'<g id="open{self.numbers[node.name]}" class="card" display="none">', *frame(here, label(node)),
            f'<a href="#" aria-label="close">{text(here.right - 18, y + 16, "×", GREY)}</a>',
            f'<use href="#{self.shared[panel]}" x="{inner:.1f}" y="{y + OPEN_TITLE:.1f}"/></g>',
        ])  # fmt: skip


def frame(here: Box, title: str) -> list[str]:
    """The box of an opened block, with its name."""
    return [
        rect(here, 'rx="6" fill="#fcfcff" stroke="#8086c0"'),
        text(here.x + PAD, here.y + 16, title, 'font-weight="bold"'),
    ]
