"""Tables as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from blockforge.console.csv_text import lines_csv, to_csv


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1+1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    (read,) = next(csv.reader(io.StringIO(lines_csv([[cell]]))))
    assert read.startswith("'")
    assert read[1:].strip()
    assert all(c.isprintable() for c in read)


def test_control_characters_are_written_out() -> None:
    assert lines_csv([["a\x1b[31mb", "x\ny", "nul\0"]]) == "a\\x1b[31mb,x\\ny,nul\\x00\n"


def test_numbers_and_plain_text_stay() -> None:
    row = [-1, -1.5, 1e-5, "-1.5e-3", "+2", None, True, "stages.0.dim", "a, b", 'say "x"', "a-b", "ümlaut ✓"]
    assert next(csv.reader(io.StringIO(lines_csv([row])))) == [
        "-1", "-1.5", "1e-05", "-1.5e-3", "+2", "", "True", "stages.0.dim", "a, b", 'say "x"', "a-b", "ümlaut ✓",
    ]  # fmt: skip
    assert to_csv([{"a": 1}, {"=b": 2}]) == "a,'=b\n1,\n,2\n"
