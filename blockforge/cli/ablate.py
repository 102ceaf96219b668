"""`blockforge ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blockforge.cli._output import console
from blockforge.files import write_text

if TYPE_CHECKING:
    from blockforge.compiler import Architecture


def ablate(
    name: Annotated[str | None, typer.Argument(help="A packaged ablation, or a YAML file.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the table: .csv or .md.")] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Also time each row (CPU, one image).")] = False,
) -> None:
    """Print a table of variants of a spec: parameters, multiply-adds, activation memory.

    Without a name: list the ablations that come with blockforge.

    \b
    Examples:
      blockforge ablate
      blockforge ablate smt_heads
      blockforge ablate my_table.yaml --latency -o table.md
    """
    from blockforge import ablation
    from blockforge.console.csv_text import to_csv
    from blockforge.errors import BlockforgeError

    if name is None:
        print("\n".join(ablation.list_ablations()))
        return
    if output is not None and output.suffix not in (".csv", ".md"):
        raise BlockforgeError(f"cannot tell what to write from '{output}'\n  hint: end it in .csv or .md")
    spec, rows = ablation.run(name)
    cells = [ablation.figures(row) for row in rows]
    if latency:
        for row, cell in zip(rows, cells, strict=True):
            cell["latency_ms"] = _latency_ms(row.arch)
    _print(str(spec.about.get("title", name)), cells, [r.spec.note for r in rows])
    if output is not None:
        write_text(output, to_csv(cells) if output.suffix == ".csv" else ablation.to_markdown(cells))


def _latency_ms(arch: Architecture) -> float:
    """Median of the forward passes of one image in half a second, seven at least."""
    import blockforge as bf
    from blockforge.measure.profile import Setting, measure

    return measure(bf.build(arch, seed=0), Setting(1, "fp32"), seconds=0.5).p50_ms


def _print(heading: str, cells: list[dict[str, object]], notes: list[str | None]) -> None:
    from blockforge.ablation import shown, title
    from blockforge.console.csv_text import columns
    from blockforge.console.text_table import Number, TextTable, Words

    names = columns(cells)
    order = {column: i for i, column in enumerate(("activation_bytes", "latency_ms"), 1)}
    shown_columns = [
        Words(title(c)) if c == "label" else Number(title(c).replace(" ", "\n"), leaves=order.get(c)) for c in names
    ]
    table = TextTable(*shown_columns, title=heading)
    for cell in cells:
        table.add_row(*(shown(n, cell.get(n)) for n in names))
    out = console()
    out.print(table)
    for cell, note in zip(cells, notes, strict=True):
        if note:
            out.print(f"{cell['label']}: {note}")
