"""What commands share: options and consoles."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockforge.console.prose import Prose
from blockforge.errors import BlockforgeError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from blockforge.weights.files import Weights

WIDTH = 120
"""Of output that no terminal shows."""

DATA_HELP = "digits, mnist5k, fashion, cifar10, imagefolder:PATH, npz:FILE, idx:DIR, jpegs:FILE or hf:NAME."
STUDY_HELP = "The study's name in a database."
SPACE_HELP = "A packaged space or a YAML file with holes."
SPEC_HELP = "A zoo name or a YAML file."
SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help=SPEC_HELP, show_default=False)]
SpecsArgument = Annotated[list[str], typer.Argument(metavar="SPEC...", help="Zoo names or YAML files.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads of torch; 0: as it chooses.")]
BatchesOption = Annotated[str, typer.Option(help="Batch sizes, separated by commas.")]
TrainStepOption = Annotated[bool, typer.Option("--train", help="A training step instead of inference.")]
InitSeedOption = Annotated[int | None, typer.Option(min=0, help="Make the initialisation reproducible.")]
WeightsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Load these weights: safetensors or a checkpoint of torch.")
]
DataOption = Annotated[str, typer.Option(metavar="DATA", help=DATA_HELP)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a value, as in stages.2.depth=12; may be repeated."),
]
BackendOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="Whose memory is shown: numba, or torch, which runs without it. Never measured."),
]
DeployOption = Annotated[
    bool,
    typer.Option(
        "--deploy",
        help="The form that is deployed: norms are in their convolutions, convolutions that are added are one.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="K", help="Where in the file the weights are, as in model_ema.", show_default="found"
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option(
        "--prefix", metavar="P", help="What their names begin with, as in backbone.; others are left out.",
        show_default="found",
    ),
]  # fmt: skip
LeaseOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="How long a worker may be silent until it is taken for dead.",
        show_default="60.0",
    ),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-broken", help="Read every image first, and leave out those that cannot be read.")
]
LogOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TRACKER", help="Tell tensorboard, mlflow or wandb as well; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

_LONG = re.compile(r"\S{300,}")
"""A word that nobody reads to its end, as a path that is too long for the system."""
_STYLES = (
    (re.compile(r"\berror\[[\w-]+\]|^error:", re.MULTILINE), "1;31"),
    (re.compile(r"\bwarning\[[\w-]+\]|^warning:", re.MULTILINE), "1;33"),
    (re.compile(r"^ +\| +(\^+)$", re.MULTILINE), "1;31"),
    (re.compile(r"^ +hint:", re.MULTILINE), "1;36"),
)


def chosen(file: Path | None, key: str | None, prefix: str | None) -> Weights | None:
    """The weights that `--weights`, `--key` and `--prefix` name."""
    from blockforge.weights.files import Weights

    if file is None:
        for option, value in (("--key", key), ("--prefix", prefix)):
            if value is not None:
                raise typer.BadParameter("it says which weights of --weights FILE", param_hint=option)
        return None
    return Weights(file, key, prefix)


def console() -> Console:
    """Standard output: as wide as the terminal, plain and of fixed width where there is none."""
    from rich.console import Console

    class Whole(Console):
        """A console that breaks lines between words alone and crops nothing: a path to copy stays in one piece."""

        def print(self, *objects: Any, **how: Any) -> None:  # type: ignore[override]
            filled = objects if how.get("soft_wrap") else [Prose(o) if isinstance(o, str) else o for o in objects]
            super().print(*filled, **{"crop": False, **how})

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    return Whole(width=width, highlight=False, markup=False, emoji=False)


def listed(text: str, known: Sequence[str], option: str) -> list[str]:
    """`a, b` -> the words of an option that takes several. Raises: typer.BadParameter for one that is not known."""
    words = [word for part in text.split(",") if (word := part.strip())]
    for word in words:
        if word not in known:
            raise typer.BadParameter(did_you_mean(word, known), param_hint=option)
    return words


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json

    print(json.dumps(value, indent=1))


def print_error(error: BlockforgeError) -> None:
    """The message on standard error; messages without a place of their own start with `error:`."""
    text = _LONG.sub(lambda word: f"{word[0][:100]}...{word[0][-60:]}", str(error))
    if not re.search(r"\berror\[", text):
        text = f"error: {text}"
    print(coloured(text), file=sys.stderr)


def coloured(text: str) -> str:
    """Diagnostics with colour, if standard error is a terminal that wants it."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    for pattern, style in _STYLES:
        text = pattern.sub(lambda m, style=style: _styled(m, style), text)  # type: ignore[misc]
    return text


def _styled(match: re.Match[str], style: str) -> str:
    shown = match[match.lastindex or 0]
    return match[0].replace(shown, f"\x1b[{style}m{shown}\x1b[0m")
