"""What the commands of `blockforge analyze` share: options, and files, tables and JSON of their results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockforge.cli._output import (
    DeviceOption,
    JsonOption,
    KeyOption,
    PrefixOption,
    SetOption,
    chosen,
    console,
    listed,
    print_json,
)
from blockforge.files import make_folder, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockforge.analyze import NetworkWithImages

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


@dataclass(frozen=True)
class ImageOptions:
    """What networks are shown."""

    data: DataOption = None
    images: ImagesOption = 16
    batch: BatchOption = 16


@dataclass(frozen=True)
class NetworkOptions:
    """How networks are made."""

    weights: WeightsOption = None
    key: KeyOption = None
    prefix: PrefixOption = None
    overrides: SetOption = None
    seed: SeedOption = 0
    device: DeviceOption = "cpu"


@dataclass(frozen=True)
class SeveralNetworksOptions(NetworkOptions):
    """How networks are made that are held against each other."""

    variants: VariantOption = None


@dataclass(frozen=True)
class FigureOptions:
    """What becomes of the results."""

    output: OutputOption = None
    formats: FormatOption = "png"
    json: JsonOption = False


def opened(specs: Sequence[str], images: ImageOptions, networks: NetworkOptions) -> list[NetworkWithImages]:
    """The networks that the options name, and their images. `--key` and `--prefix` hold for the weights of each."""
    from blockforge.analyze import networks_with_images
    from blockforge.measure.profile import pick_device

    files: Sequence[Path | None] = networks.weights or [None]
    weights = [chosen(file, networks.key, networks.prefix) for file in files]
    return networks_with_images(
        specs,
        overrides=networks.overrides or (),
        variants=(isinstance(networks, SeveralNetworksOptions) and networks.variants) or (),
        weights=[one for one in weights if one is not None],
        seed=networks.seed,
        device=pick_device(networks.device),
        data=images.data,
        count=images.images,
        batch_size=images.batch,
    )


def watched(what: str, networks: Sequence[NetworkWithImages]) -> AbstractContextManager[Callable[[], None]]:
    """Shows progress over the batches of all networks."""
    from blockforge.console.progress import counting

    return counting(what, sum(len(each.batches) for each in networks))


def finish(
    command: str,
    networks: Sequence[NetworkWithImages],
    options: FigureOptions,
    figure: Figure,
    table: Rows,
    title: str,
    *,
    whole: object = None,
    csv: Rows | None = None,
) -> None:
    """Write the figure and the CSV, and print the table or JSON. What is no trained network on images says so in all.

    Args:
        options: without a folder, the command and its networks name one.
        table: what is printed, and written unless `csv` says more.
        whole: the JSON, if it is not the table.
    """
    from blockforge.analyze.result_rows import shown
    from blockforge.console.csv_text import to_csv
    from blockforge.figures import write_figure, write_remark

    folder = options.output or default_folder(command, [each.label for each in networks])
    make_folder(folder)
    write_text(folder / f"{command}.csv", to_csv(csv or table))
    remark = caution(networks)
    if remark:
        write_remark(figure, remark)
    for format in _formats(options.formats):
        write_figure(folder / f"{command}.{format}", figure)
    if options.json:
        print_json(whole or table)
        return
    console().print(shown(table, title))
    if remark:
        console().print(remark)
    console().print(f"written to {folder}", soft_wrap=True)


def caution(networks: Sequence[NetworkWithImages]) -> str:
    """What a figure of untrained networks, or of noise, does not show; empty for trained ones on images."""
    from blockforge.analyze.inputs import NOISE

    untrained = [each.label for each in networks if each.network.weights is None]
    noise = any(each.images.name == NOISE for each in networks)
    whose = "" if len(untrained) == len(networks) else f" ({', '.join(untrained)})"
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
