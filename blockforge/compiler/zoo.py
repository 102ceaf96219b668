"""The whole zoo compiled, of which a plugin may have brought a part that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.pipeline import compile_spec
from blockforge.errors import BlockforgeError
from blockforge.notes import warn
from blockforge.provenance import source_in
from blockforge.spec import list_specs
from blockforge.spec.load import SPECS


def compile_zoo(
    pattern: str = "*", overrides: Mapping[str, Any] | list[str] | None = None
) -> tuple[dict[str, Architecture], dict[str, BlockforgeError]]:
    """The specs of the zoo that match a shell pattern, by name, and what is wrong with those that do not compile."""
    known: dict[str, Architecture] = {}
    wrong: dict[str, BlockforgeError] = {}
    for name in list_specs(pattern):
        try:
            known[name] = compile_spec(name, overrides)
        except BlockforgeError as e:
            wrong[name] = e
    return known, wrong


def compiled_zoo(pattern: str = "*") -> dict[str, Architecture]:
    """Those that compile, with a warning for each of the others."""
    known, wrong = compile_zoo(pattern)
    for name, error in wrong.items():
        warn(left_out(name, error))
    return known


def left_out(name: str, error: BlockforgeError) -> str:
    """What is said of a spec that does not compile: whose it is, and why."""
    source = source_in(SPECS, name)
    return f"the spec '{name}'{f' of {source.where()}' if source is not None else ''} is left out: {error}"
