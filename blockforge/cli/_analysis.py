"""What the commands of `blockforge analyze` share: options, and files, tables and JSON of their results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockforge.cli._output import console, listed, print_json
from blockforge.files import make_folder, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    typer.Option(
        metavar="FILE",
        help="Weights; of several networks, once for each in their order.",
        show_default="initialisation",
    ),
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
    typer.Option("--output", "-o", metavar="DIR", help="Folder of the figure and the CSV.", show_default=f"{RUNS}/..."),
]


def _formats(text: str) -> list[str]:
    from blockforge.figures import FORMATS

    return listed(text.lower(), FORMATS, "--format") or [FORMATS[0]]


FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="png,svg,pdf", help="What the figure is written as, one or several.",
        callback=lambda text: _formats(text) and text,  # before anything is computed
    ),
]  # fmt: skip


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
    from blockforge.measure.profile import pick_device

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
    from blockforge.console.progress import counting

    return counting(what, sum(len(case.batches) for case in cases))


def finish(
    output: Path | None,
    command: str,
    cases: Sequence[Case],
    figure: Figure,
    table: Rows,
    title: str,
    *,
    json: bool,
    formats: str,
    whole: object = None,
    csv: Rows | None = None,
) -> None:
    """Write the figure and the CSV, and print the table or JSON. What is no trained network on images says so in all.

    Args:
        formats: of the figure, separated by commas.
        output: the folder; None: one that the command and its networks name.
        table: what is printed, and written unless `csv` says more.
        whole: the JSON, if it is not the table.
    """
    from blockforge.analyze.result_rows import shown
    from blockforge.console.csv_text import to_csv
    from blockforge.figures import write_figure, write_remark

    folder = output if output is not None else default_folder(command, [case.label for case in cases])
    make_folder(folder)
    write_text(folder / f"{command}.csv", to_csv(csv or table))
    remark = caution(cases)
    if remark:
        write_remark(figure, remark)
    for format in _formats(formats):
        write_figure(folder / f"{command}.{format}", figure)
    if json:
        print_json(whole or table)
        return
    console().print(shown(table, title))
    if remark:
        console().print(remark)
    console().print(f"written to {folder}", soft_wrap=True)


def caution(cases: Sequence[Case]) -> str:
    """What a figure of untrained networks, or of noise, does not show; empty for trained ones on images."""
    from blockforge.analyze.inputs import NOISE

    untrained = [case.label for case in cases if case.subject.weights is None]
    noise = any(case.images.name == NOISE for case in cases)
    whose = "" if len(untrained) == len(cases) else f" ({', '.join(untrained)})"
    parts = [f"untrained weights{whose}"] if untrained else []
    parts += ["noise in place of images"] if noise else []
    if not parts:
        return ""
    options = [*(["--weights"] if untrained else []), *(["--data"] if noise else [])]
    what = f"Of {' and '.join(parts)}: it shows the architecture, not what a trained network sees."
    return f"{what} {' and '.join(options)} {'give' if len(options) > 1 else 'gives'} others."


def default_folder(command: str, labels: Sequence[str]) -> Path:
    """The folder of an analysis that names none: the same command writes to it again."""
    return RUNS / "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in (command, *labels))[:120]
