"""What all commands have in common: `--plugin`, and values that are looked at before a command runs."""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from blockforge.errors import BlockforgeError, shown_path

_UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)
_LARGEST = 2**63


class PathError(BlockforgeError):
    """A path that no file can be found at."""


def _load(files: list[Path]) -> list[Path]:
    if files:
        from blockforge.plugins import load_plugins

        load_plugins([str(file) for file in files])
    return files


PluginOption = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file whose blocks, and whatever else it brings, are registered first; may be repeated.",
        show_default=False,
        default_factory=list,  # without one the oldest typer asks None for its length before the callback
        callback=_load,
        is_eager=True,  # blocks are known before any other option is read
    ),
]


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a command that also takes `--plugin`, and that no value reaches which nothing could use.

    A parameter whose type is a dataclass stands for a group of options that commands share, one for each field; its own
    default gives theirs.

    Raises, when it is called: BadParameter for a number that is not finite or beyond 64 bits, PathError.
    """
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        p.name: p.annotation for p in signature.parameters.values() if dataclasses.is_dataclass(p.annotation)
    }

    @functools.wraps(function)
    def run(**values: Any) -> Any:
        values.pop("plugin")
        for name, value in values.items():
            for each in value if isinstance(value, list | tuple) else (value,):
                _check(name, each)
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        return function(**values)

    parameters = [one for p in signature.parameters.values() for one in (_options_of(p) if p.name in groups else [p])]
    parameters.append(inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, annotation=PluginOption))
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _options_of(group: inspect.Parameter) -> list[inspect.Parameter]:
    types = get_type_hints(group.annotation, include_extras=True)
    names = [field.name for field in dataclasses.fields(group.annotation)]
    return [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=getattr(group.default, n), annotation=types[n])
        for n in names
    ]


def _check(name: str, value: Any) -> None:
    hint = f"--{name.replace('_', '-')}"
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number", param_hint=hint)
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise typer.BadParameter("a number beyond 64 bits", param_hint=hint)
    if isinstance(value, Path):
        try:
            os.stat(value)
        except (OSError, ValueError) as e:  # of a file that is still to be written the rest is no obstacle
            if isinstance(e, ValueError) or e.errno in _UNUSABLE:
                reason = os.strerror(e.errno or 0).lower() if isinstance(e, OSError) else "it holds a NUL character"
                raise PathError(f"cannot use {shown_path(value)}: {reason}") from None


def empty_argument(argv: list[str]) -> str | None:
    """The argument that is empty, as an unset variable of a shell leaves it; no command has a use for one."""
    for before, argument in zip(["", *argv], argv, strict=False):
        if argument == "":
            return f"the value of {before}" if before.startswith("-") else "an argument"
        if argument.startswith("--") and argument.endswith("=") and argument.count("=") == 1:
            return f"the value of {argument[:-1]}"
    return None
