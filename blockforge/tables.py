"""Rows of values as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column that some row has, in order."""
    return list(dict.fromkeys(key for row in rows for key in row))


def to_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None, *, header: bool = True) -> str:
    """A table as CSV, with plain numbers; what a row lacks stays empty.

    Args:
        names: the columns; by default all that some row has.
        header: whether the names come first; a table that grows has them already.
    """
    names = columns(rows) if names is None else names
    return lines_csv([*([names] if header else []), *([row.get(name) for name in names] for row in rows)])


def lines_csv(lines: Iterable[Sequence[Any]]) -> str:
    """Lines of values as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
