"""`blockforge data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import DATA_HELP, JsonOption, console, print_json

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at images and labels before training.")


@data.command("check")
def data_check(
    source: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA_HELP} A folder or an .npz file alone will do.")],
    workers: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Processes that read.", show_default="the cores, up to 8"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read every image once and list what is wrong. Exit code 1 if anything is.

    That is: images that cannot be read, labels that are no classes, classes without images, tiny and huge images,
    and the same image under two labels or in two parts.

    \b
    Examples:
      blockforge data check photos/
      blockforge data check imagefolder:imagenet --workers 16
      blockforge data check 'hf:beans?split_seed=1' --json
      blockforge train smt_t --data imagefolder:photos --skip-broken
    """
    from blockforge.train import check_data

    report = check_data(_named(source), workers=workers, progress=True)
    if json:
        print_json(report.as_dict())
    else:
        lines = [*map(str, report.problems), *(f"note: {note}" for note in report.notes)]
        uses = {"train": "train on", "val": "choose by", "test": "test on"}
        first, *others = (f"{count} images to {uses[name]}" for name, count in report.images.items())
        counts = ", ".join([first, *(text.replace(" images", "") for text in others)])
        wrong = f"{len(report.problems)} wrong" if report.problems else "nothing is wrong"
        lines.append(f"{report.name}: {len(report.classes)} classes, {counts}; {wrong}")
        for line in lines:
            console().print(line, soft_wrap=True)
    raise typer.Exit(int(bool(report.problems)))


def _named(source: str) -> str:
    """A folder or an archive as a source of data."""
    if Path(source).is_dir():
        return f"imagefolder:{source}"
    return f"npz:{source}" if Path(source).is_file() else source
