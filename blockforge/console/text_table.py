"""Tables for people, at any width: numbers stay whole, labels shorten in the middle, and a column that has no room
leaves with a word.

A table that is too wide first wraps its words and shortens its labels a little, then its columns leave in their order,
then words and labels get as narrow as they can be read; where even that is too wide, every row becomes a paragraph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from blockforge.console.prose import Prose, copied

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

_GAP, _EDGES = 3, 2
"""Spaces between two columns, and around all of them."""
_COMFORTABLE, _LEAST = 28, 12
"""The widths to which words and labels shrink before columns leave, and behind that."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: its first line.
        leaves: columns with the lowest number leave first where there is no room; None: it stays.
    """

    title: str
    leaves: int | None = None
    shrinks: ClassVar[bool] = False


class Words(Column):
    """Cells that wrap between words."""

    shrinks = True


class Label(Column):
    """Names, which lose their middle where there is no room, and stay distinct."""

    shrinks = True


class Number(Column):
    """Figures with their units, never cut."""


class File(Column):
    """Files to copy, never broken: where there is no room, they stand below the table, a line each."""


class TextTable:
    """Rows of text, to be printed by rich.

    Args:
        columns: the first ones, if they are labels, tell the rows apart.
        title: what stands above the table.
    """

    def __init__(self, *columns: Column, title: str = "") -> None:
        self.columns, self.title = columns, title
        self.rows: list[tuple[str, ...]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """A row; cells that are not given are empty."""
        assert len(cells) <= len(self.columns), cells
        self.rows.append((*cells, *[""] * (len(self.columns) - len(cells))))

    def add_section(self) -> None:
        """A line below the last row."""
        self._sections.add(len(self.rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Prose(self.title)
        layout = self._layout(options.max_width)
        if layout is None:
            yield from self._paragraphs(options.max_width)
            return
        yield copied("")
        yield self._table(layout)
        yield copied("")
        yield from self._below(layout)
        if left := [_flat(self.columns[i].title) for i in self._leaving() if i not in layout]:
            yield Prose(f"no room at this width for: {', '.join(filter(None, left)) or 'bars'}", "dim")

    def _layout(self, width: int) -> dict[int, int] | None:
        """Column -> its width, of the columns that are shown; None if there is no table so narrow."""
        leaving = self._leaving()
        files = [i for i, c in enumerate(self.columns) if isinstance(c, File)]
        for least in (_COMFORTABLE, _LEAST):
            for gone in (leaving[:n] for n in range(len(leaving) + 1)):
                for below in ([], files) if files else ([],):
                    shown = [i for i in range(len(self.columns)) if i not in gone and i not in below]
                    if (widths := self._widths(shown, least, width)) is not None:
                        return widths
        return None

    def _leaving(self) -> list[int]:
        """The columns that may leave, in their order."""
        order = {i: c.leaves for i, c in enumerate(self.columns) if c.leaves is not None}
        return sorted(order, key=order.__getitem__)

    def _widths(self, shown: Sequence[int], least: int, room: int) -> dict[int, int] | None:
        """The columns as wide as they want to be, or as the room lets them; None if there is not enough."""
        natural = {i: max(map(_width, self._lines(i))) for i in shown}
        shrinking = [i for i in shown if self.columns[i].shrinks]
        widths = natural | {i: min(natural[i], self._least(i, least)) for i in shrinking}
        spare = room - _EDGES - _GAP * (len(shown) - 1) - sum(widths.values())
        if spare < 0:
            return None
        labels = [i for i in shrinking if isinstance(self.columns[i], Label)]  # first: what wraps loses nothing
        for group in (labels, [i for i in shrinking if i not in labels]):
            wanting = sorted(group, key=lambda i: natural[i] - widths[i])
            for at, i in enumerate(wanting):  # what wants little gets all of it, the others share the rest
                more = min(natural[i] - widths[i], spare // (len(wanting) - at))
                widths[i], spare = widths[i] + more, spare - more
        return widths

    def _lines(self, i: int) -> Iterator[str]:
        cells = [self.columns[i].title, *(row[i] for row in self.rows)]
        return (line for cell in cells for line in cell.split("\n"))

    def _least(self, i: int, least: int) -> int:
        """How narrow a column may get: as its longest word, or as its labels can be told apart."""
        column = self.columns[i]
        if isinstance(column, Words):
            return max([least, *(_width(word) for line in self._lines(i) for word in line.split())])
        labels = {row[i] for row in self.rows}
        least = max(least, _width(column.title))
        while len({shortened(label, least) for label in labels}) < len(labels):
            least += 1
        return least

    def _table(self, layout: dict[int, int]) -> Table:
        from rich import box
        from rich.table import Table

        # With pad_edge=False versions of rich differ in the width of a table: lines above and below are ours instead.
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for i, width in layout.items():
            column = self.columns[i]
            justify: Literal["left", "right"] = "right" if isinstance(column, Number) else "left"
            whole = not isinstance(column, Words)
            table.add_column(column.title, justify=justify, width=width, no_wrap=whole, overflow="fold")
        for at, row in enumerate(self.rows, 1):
            cells = (shortened(row[i], w) if isinstance(self.columns[i], Label) else row[i] for i, w in layout.items())
            table.add_row(*map(_plain, cells), end_section=at in self._sections)
        return table

    def _below(self, layout: dict[int, int]) -> Iterator[Text]:
        """The files that have no room in the table, a line each."""
        for i, column in enumerate(self.columns):
            if isinstance(column, File) and i not in layout:
                yield copied(f"{column.title}:")
                yield from (copied(f"  {row[0]}  {row[i]}") for row in self.rows if row[i])

    def _paragraphs(self, width: int) -> Iterator[Prose | Text]:
        """A row is its labels, and its other cells with their titles: lines are broken between them alone."""
        labels = next((i for i, c in enumerate(self.columns) if i and not isinstance(c, Label)), len(self.columns))
        for row in self.rows:
            yield Prose(_flat(" ".join(row[:labels])))
            line = ""
            for column, cell in zip(self.columns[labels:], row[labels:], strict=True):
                pair = f"  {_flat(f'{column.title} {cell}')}" if cell else ""
                if line and _width(line + pair) > width:
                    yield copied(line)
                    line = ""
                line += pair
            yield copied(line)


def shortened(label: str, width: int) -> str:
    """A name that loses its middle where it is wider than `width`: `stages.2…s.11.mlp`."""
    if _width(label) <= width:
        return label
    start = (width - 1) // 3
    return f"{label[:start]}…{label[len(label) - (width - 1 - start) :]}"


def _flat(cell: str) -> str:
    return " ".join(cell.split())


def _width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def _plain(cell: str) -> Text:
    """Square brackets of a cell are no markup."""
    from rich.text import Text

    return Text(cell)
