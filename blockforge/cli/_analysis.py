"""What the commands of `blockforge analyze` share: options, and files, tables and JSON of their results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockforge.cli._output import console, print_json
from blockforge.files import make_folder, write_atomically, write_text

if TYPE_CHECKING:
    from blockforge.analyze import Case
    from blockforge.weights.files import Weights

RUNS = Path("runs") / "analyze"
Rows = list[dict[str, Any]]

SpecsArgument = Annotated[
    list[str], typer.Argument(metavar="SPEC...", help="Zoo names, YAML files, or TABLE:ROW of an ablation table.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="DATA", help="An image, a folder of images, or what train takes: mnist5k, imagefolder:PATH, ...",
        show_default="noise",
    ),
]  # fmt: skip
ImagesOption = Annotated[int, typer.Option("--images", min=1, max=100_000, metavar="N", help="Images to look at.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, max=4096, metavar="N", help="Images at a time.")]
WeightsOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Weights; once for each network, in their order.", show_default="initialisation"),
]
VariantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--variant", metavar="'LABEL: PATH=VALUE; ...'", help="The first SPEC with other values; may be repeated."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="Of the initialisation and of noise.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder of the PNG and the CSV.", show_default=f"{RUNS}/..."),
]


def named(weights: Sequence[Path] | None, key: str | None, prefix: str | None) -> list[Weights]:
    """The weights of each network; `--key` and `--prefix` hold for all of them."""
    from blockforge.cli._output import chosen

    files: Sequence[Path | None] = weights or [None]
    return [w for w in (chosen(file, key, prefix) for file in files) if w is not None]


def opened(
    specs: Sequence[str],
    overrides: Sequence[str] | None,
    variants: Sequence[str] | None,
    weights: Sequence[Weights],
    seed: int,
    device: str,
    data: str | None,
    images: int,
    batch: int,
) -> list[Case]:
    """The networks that the options name, and their images."""
    from blockforge.analyze import cases
    from blockforge.bench.profile import pick_device

    return cases(
        specs,
        overrides=overrides or (),
        variants=variants or (),
        weights=weights,
        seed=seed,
        device=pick_device(device),
        data=data,
        count=images,
        batch_size=batch,
    )


def watched(what: str, cases: Sequence[Case]) -> AbstractContextManager[Callable[[], None]]:
    """Shows progress over the batches of all cases."""
    from blockforge.analyze.progress import progress

    return progress(what, sum(len(case.batches) for case in cases))


def finish(
    output: Path | None,
    command: str,
    cases: Sequence[Case],
    draw: Callable[[Path], object],
    table: Rows,
    title: str,
    *,
    json: bool,
    whole: object = None,
    csv: Rows | None = None,
) -> None:
    """Write the PNG and the CSV, and print the table or JSON.

    Args:
        output: the folder; None: one that the command and its networks name.
        table: what is printed, and written unless `csv` says more.
        whole: the JSON, if it is not the table.
    """
    from blockforge.analyze.tables import shown
    from blockforge.tables import to_csv

    folder = output if output is not None else default_folder(command, [case.label for case in cases])
    make_folder(folder)
    write_text(folder / f"{command}.csv", to_csv(csv or table))
    write_atomically(folder / f"{command}.png", draw)
    if json:
        print_json(whole or table)
        return
    console().print(shown(table, title))
    console().print(f"written to {folder}", soft_wrap=True)


def default_folder(command: str, labels: Sequence[str]) -> Path:
    """The folder of an analysis that names none: the same command writes to it again."""
    return RUNS / "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in (command, *labels))[:120]
