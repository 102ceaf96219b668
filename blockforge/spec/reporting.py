"""Where a value is really written, and errors that show it.

A value may reach its place through `$name` or a choice. `Origins` remembers the way, so that an error points
at the choice that was taken, or at the place of use with the `let` below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from blockforge.errors import Loc, Locs, Path, Report, format_path

_NOT_WHOLE = re.compile(r"whole number.*, not -?\d+\.\d")
MAX_ERRORS = 50
"""Of one pass: enough to mend at once; more would only be slow to print."""


class Origins:
    """For values that came from elsewhere: the path they are used at, and the one they are written at.

    Attributes:
        computed: the paths of values that expressions gave.
    """

    __slots__ = ("computed", "table")

    def __init__(self, outer: Origins | None = None) -> None:
        self.table: dict[Path, Path] = dict(outer.table) if outer else {}
        self.computed: set[Path] = set(outer.computed) if outer else set()

    def add(self, used: Path, written: Path, below: Origins | None = None) -> None:
        """The value at `used` is written at `written`; `below`: origins of what lies in it."""
        self.table[used] = written
        if below is not None:
            for path, given in below.table.items():
                self.table[(*used, *path[len(written) :])] = given
            self.computed |= {(*used, *path[len(written) :]) for path in below.computed}

    def place(self, path: Path, locs: Locs) -> tuple[Loc | None, tuple[tuple[str, Loc], ...]]:
        """Where an error at `path` belongs, and the `let` that the value came from, if one did."""
        for end in range(len(path), 0, -1):
            if (written := self.table.get(path[:end])) is None:
                continue
            given = (*written, *path[end:])
            loc = locs.value(given)
            if written[:end] == path[:end]:  # a choice, at its own place
                return loc, ()
            return locs.value(path), ((f"the value comes from {format_path(written)}", loc),) if loc else ()
        return locs.value(path), ()


NOWHERE = Origins()
"""Of a part whose values all stand where they are used."""


def report_at(
    report: Report,
    origins: Origins,
    code: str,
    message: str,
    path: Path,
    *,
    hint: str | None = None,
    on_key: bool = False,
    within: Any = None,
    related: Sequence[tuple[str, Loc]] = (),
) -> None:
    """Add an error at `path` once, with its origin; raise what was found when it is enough.

    Args:
        within: takes the place of the value and gives the part of it that is wrong.
    """
    if any(d.path == path and d.message == message for d in report.found):
        return
    if path in origins.computed and _NOT_WHOLE.search(message) and not (hint or "").startswith("//"):
        hint = f"in an expression // leaves out the rest{f'; {hint}' if hint else ''}"
    loc, came_from = origins.place(path, report.locs)
    if on_key and path not in origins.table:
        loc = report.locs.key(path)
    if within is not None:
        if came_from:
            came_from = tuple((text, within(where)) for text, where in came_from)
        else:
            loc = within(loc)
    report.error(code, message, path, hint=hint, loc=loc, related=(*came_from, *related))
    stop_if_many(report)


def inside(loc: Loc | None, text: str, column: int, length: int) -> Loc | None:
    """The place `column` characters into a string value, if the value stands on one line as it is."""
    if loc is None or not 1 <= loc.line <= len(loc.source.lines):
        return loc
    start = loc.source.lines[loc.line - 1].find(text, loc.column - 1)
    if start not in (loc.column - 1, loc.column):  # as it is, or behind a quote
        return loc
    return Loc(loc.source, loc.line, start + 1 + column, max(1, length))


def stop_if_many(report: Report) -> None:
    """Raise what was found so far if it is enough."""
    if len(report.found) >= MAX_ERRORS:
        report.close()
