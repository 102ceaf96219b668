"""Sentences for people, at any width: lines break between words alone, and a path to copy stays in one piece."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


@dataclass(frozen=True)
class Prose:
    """Text that is filled to the width it finds; a word that is wider, such as a path, runs over."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.split("\n"):
            filled = textwrap.wrap(line, options.max_width, break_long_words=False, break_on_hyphens=False)
            yield from (copied(part, self.style) for part in filled or [""])


def copied(line: str, style: str = "") -> Text:
    """A line that people copy, such as a command: never broken."""
    from rich.text import Text

    return Text(line, style, no_wrap=True, overflow="ignore")
