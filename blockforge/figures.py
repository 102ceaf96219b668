"""Figures: made without a display, and written as the end of their file's name says."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockforge.errors import BlockforgeError
from blockforge.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Format -> what to leave out, so that equal figures are equal files."""
FORMATS = tuple(_METADATA)
_REMARK_POINTS = 7.5
_LETTERS_AN_INCH = 15
"""Of a remark; matplotlib breaks no lines, and cuts off what is wider than the figure."""


def new_figure(width: float, height: float, dpi: int = 150) -> Figure:
    """An empty figure of so many inches. pyplot's global state stays untouched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_remark(figure: Figure, remark: str) -> None:
    """A line below the figure, or as many as its width asks for."""
    across = int(_LETTERS_AN_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(remark, across), fontsize=_REMARK_POINTS, color="#b02a30")


def format_of(path: Path) -> str:
    """`png`, `svg` or `pdf`; a pipe or a device gets a PNG. Raises: BlockforgeError for a name that ends otherwise."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return FORMATS[0]
    if (suffix := path.suffix.lower()[1:]) in FORMATS:
        return suffix
    raise BlockforgeError(f"cannot tell what to draw into '{path}'\n  hint: end its name in .png, .svg or .pdf")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure whole or not at all. Raises: OutputError; BlockforgeError for a name that ends otherwise."""
    import matplotlib

    format = format_of(path)
    settings: Any = {"svg.hashsalt": "blockforge", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        write_atomically(path, lambda file: figure.savefig(file, format=format, metadata=_METADATA[format]))
