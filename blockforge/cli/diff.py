"""`blockforge diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from blockforge.cli._output import SPEC_HELP, JsonOption, console, print_json

if TYPE_CHECKING:
    from blockforge.compiler.diff import Change
    from blockforge.console.text_table import TextTable


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=SPEC_HELP)],
    after: Annotated[str, typer.Argument(metavar="B", help=SPEC_HELP)],
    json: JsonOption = False,
) -> None:
    """Say how two networks differ: totals, and every layer that is not the same.

    \b
    Examples:
      blockforge diff smt_t smt_s
      blockforge diff smt_b my_net.yaml --json
    """
    import dataclasses

    import blockforge as bf
    from blockforge.compiler.diff import changes, totals

    a, b = bf.compile(before), bf.compile(after)
    differences = changes(a, b)
    if json:
        print_json({"totals": totals(a, b), "changes": [dataclasses.asdict(c) for c in differences]})
        return
    out = console()
    if a.hash == b.hash:
        out.print(f"{a.name} and {b.name} are the same architecture ({a.hash})")
        return
    out.print(_totals_table(a.name, b.name, totals(a, b)))
    out.print(_changes_table(a.name, b.name, differences))


def _totals_table(a: str, b: str, rows: dict[str, tuple[int, int]]) -> TextTable:
    from blockforge.console.text_table import Label, Number, TextTable
    from blockforge.units import format_bytes, format_count

    table = TextTable(Label(""), Number(a), Number(b), Number("ratio", leaves=1))
    for name, (old, new) in rows.items():
        show = format_bytes if name == "activation_bytes" else format_count
        table.add_row(name.replace("_", " "), show(old), show(new), f"{new / old:.2f}" if old else "")
    return table


def _changes_table(a: str, b: str, differences: list[Change]) -> TextTable:
    from blockforge.console.text_table import Label, Number, TextTable, Words
    from blockforge.units import format_count

    table = TextTable(Label(""), Words(a), Words(b), Number("params"), Number("MACs"))
    for change in differences:
        params, macs = (f"{'+' if v > 0 else ''}{format_count(v)}" if v else "" for v in (change.params, change.macs))
        table.add_row(change.name, change.before or "-", change.after or "-", params, macs)
    return table
