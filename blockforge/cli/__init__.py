"""The command line. Every module here without a leading underscore is a command: it holds a function, or a
typer app, of its own name.

Exit codes: 0 done, 1 the spec, budget or file is wrong, 2 the command line is wrong, 130 or 143 ended by
Ctrl-C or SIGTERM. Only `BlockforgeError` is caught, and what the system says of a file or disk; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from blockforge.cli._command import PluginOption, command, empty_argument
from blockforge.errors import BlockforgeError, shown_path

INTERRUPTED = 130
_APP: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}


def main(argv: list[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return its exit code."""
    return _run(make_app, argv, "blockforge")


def script(function: Callable[..., None], argv: list[str] | None = None) -> int:
    """Run a function of a script as a command line of its own, in the way of `main`."""

    def alone() -> typer.Typer:
        app = typer.Typer(**_APP)
        app.command()(command(function))
        return app

    return _run(alone, argv, None)


def _run(make: Callable[[], typer.Typer], argv: list[str] | None, name: str | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    if what := empty_argument(sys.argv[1:] if argv is None else argv):
        print(f"error: {what} is empty", file=sys.stderr)
        return 2
    try:
        make()(argv, prog_name=name, obj=sys.argv[1:] if argv is None else argv)
        code = 0
    except BlockforgeError as e:
        code = _fail(e)
    except OSError as e:
        if e.errno is None:
            raise
        code = _fail(BlockforgeError(_system_message(e)))
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code


def _fail(error: BlockforgeError) -> int:
    from blockforge.cli._output import print_error

    print_error(error)
    return error.exit_code


def _system_message(error: OSError) -> str:
    """What the system says, in a line: `cannot use runs/a: no space left on device`."""
    reason = (error.strerror or str(error)).lower()
    return reason if error.filename is None else f"cannot use {shown_path(error.filename)}: {reason}"


def make_app() -> typer.Typer:
    """All commands, found by their files."""
    app = typer.Typer(callback=_options, no_args_is_help=True, **_APP)
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        what = getattr(importlib.import_module(f"{__name__}.{module.name}"), module.name)
        if isinstance(what, typer.Typer):
            app.add_typer(_group(what), name=module.name)
        else:
            app.command(module.name, short_help=_purpose(what))(command(what))
    return app


def _purpose(function: Callable[..., object]) -> str:
    """The first line of its docstring in full, for lists of commands; typer would cut it."""
    return (function.__doc__ or "").partition("\n")[0]


def _group(app: typer.Typer) -> typer.Typer:
    """A group of commands, each made as those that stand alone are."""
    for each in app.registered_commands:
        if each.callback is not None and not hasattr(each.callback, "__wrapped__"):
            each.short_help = _purpose(each.callback)
            each.callback = command(each.callback)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from blockforge import __version__

        print(f"blockforge {__version__}")
        raise typer.Exit


def _options(
    plugin: PluginOption,
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
