"""Rows of values as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, in full width too."""


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


def from_csv(text: str, kind: type[Row]) -> list[Row]:
    """The rows of a table, each a dataclass of text, whole numbers and floats. Raises: KeyError, TypeError, ValueError
    where it is none of such rows."""
    kinds = {f.name: {"int": int, "float": float}.get(str(f.type), str) for f in fields(kind)}
    rows = csv.DictReader(io.StringIO(text))
    return [kind(**{name: of(row[name]) for name, of in kinds.items()}) for row in rows]


def lines_csv(lines: Iterable[Sequence[Any]]) -> str:
    """Lines of values as CSV, which a spreadsheet shows and does not run."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([harmless(value) for value in line] for line in lines)
    return out.getvalue()


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets a quote before it, characters that
    control a terminal or a line are written out. Numbers, and text that is one, stay as they are.

    Reference: OWASP, CSV Injection.
    """
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in value)
    if text == value and not text.lstrip().startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{text}" if value.lstrip().startswith(_FORMULA) or value[0] in "\t\r\n" else text
    return value.strip()
