"""Tables that grow a row at a time and survive `kill -9`: a row is a dataclass of text, whole numbers and floats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from blockforge.console.csv_text import from_csv, to_csv
from blockforge.errors import BlockforgeError
from blockforge.files import append_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)


class TableError(BlockforgeError, ValueError):
    """A file that is no table of such rows."""


def read_rows(file: Path, kind: type[Row]) -> list[Row]:
    """The rows of a table, without one that is half written; none if there is no file. Raises: TableError."""
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        return from_csv(text[: text.rfind("\n") + 1], kind)
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise TableError(
            f"{file} is not a table of {kind.__name__.lower()}s: {e}\n  hint: write to another file"
        ) from None


def append_row(file: Path, row: Any) -> None:
    """One write a row, on disk before this returns; several processes may write at once. Raises: OutputError."""
    append_text(file, to_csv([asdict(row)], header=not file.exists() or not file.stat().st_size))
