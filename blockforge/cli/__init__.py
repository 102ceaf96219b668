"""The command line. Every module here without a leading underscore is a command: it holds a function, or a
typer app, of its own name.

Exit codes: 0 done, 1 the spec, budget or file is wrong, 2 the command line is wrong, 130 interrupted. Only
`BlockforgeError` is caught; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from blockforge.errors import BlockforgeError

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    try:
        make_app()(argv, prog_name="blockforge")
        code = 0
    except BlockforgeError as e:
        from blockforge.cli._output import print_error

        print_error(e)
        code = e.exit_code
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code


def make_app() -> typer.Typer:
    """All commands, found by their files."""
    app = typer.Typer(
        callback=_options,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    for found in pkgutil.iter_modules(__path__):
        if found.name.startswith("_"):
            continue
        command = getattr(importlib.import_module(f"{__name__}.{found.name}"), found.name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=found.name)
        else:
            purpose = (command.__doc__ or "").partition("\n")[0]  # in full: typer would cut it
            app.command(found.name, short_help=purpose)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from blockforge import __version__

        print(f"blockforge {__version__}")
        raise typer.Exit


def _options(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A Python file whose blocks are registered first; may be repeated."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A vision backbone is a page of YAML: checked, costed, built fast, and searched under a budget.

    A spec is a name of the zoo (blockforge zoo) or a YAML file.

    \b
    Examples:
      blockforge check my_net.yaml
      blockforge build smt_b
      blockforge graph smt_b -o smt_b.svg
      blockforge search --budget 5GFLOPs
    """
    for file in plugin or ():
        from blockforge.blocks.registry import load_plugin

        load_plugin(file)
