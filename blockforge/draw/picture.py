"""Writes an architecture's graph to a file in the format that the file's name asks for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from blockforge.compiler.architecture import Architecture
from blockforge.errors import BlockforgeError, did_you_mean

Engine = Literal["auto", "dot", "builtin"]
Write = Callable[[Architecture, Path], None]
_TIMEOUT_S = 120


class DrawError(BlockforgeError):
    """A graph that cannot be drawn as asked."""


def writer(suffix: str, engine: Engine = "auto") -> Write:
    """What writes a graph to a file that ends in `suffix`.

    Args:
        engine: draws svg: graphviz's `dot`, the one built in, or (auto) dot where it is installed.
    Raises: DrawError for an ending that is not known, and where dot is needed and missing.
    """
    kind = suffix.removeprefix(".").lower()
    if kind in _TEXT:
        return _text(_TEXT[kind])
    if kind not in ("svg", "png"):
        known = did_you_mean(kind, [*_TEXT, "svg", "png"], what="endings")
        raise DrawError(
            f"no picture or graph ends in '{suffix}'\n  hint: {known}"
            if suffix
            else f"the file needs an ending\n  hint: {known}"
        )
    dot = shutil.which("dot")
    if kind == "svg" and (engine == "builtin" or (engine == "auto" and dot is None)):
        return _text(_svg)
    if dot is None:
        hint = "install it (apt install graphviz, brew install graphviz), or write .svg with the built-in engine"
        raise DrawError(f"this picture needs graphviz's program 'dot', which is not installed\n  hint: {hint}")
    return lambda arch, path: _run_dot(dot, kind, arch, path)


def _svg(arch: Architecture) -> str:
    from blockforge.draw.svg import to_svg

    return to_svg(arch)


def _text(make: Callable[[Architecture], str]) -> Write:
    def write(arch: Architecture, path: Path) -> None:
        path.write_text(make(arch), encoding="utf-8")

    return write


def _run_dot(dot: str, kind: str, arch: Architecture, path: Path) -> None:
    command = [dot, f"-T{kind}", "-o", str(path)]
    try:
        done = subprocess.run(command, input=arch.to_dot(), capture_output=True, encoding="utf-8", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DrawError(
            f"dot did not finish in {_TIMEOUT_S} s\n  hint: --engine builtin draws any svg at once"
        ) from None
    if done.returncode:
        raise DrawError(f"dot failed: {done.stderr.strip()[:500]}")


_TEXT: dict[str, Callable[[Architecture], str]] = {
    "dot": Architecture.to_dot,
    "mmd": Architecture.to_mermaid,
    "json": lambda arch: arch.to_json(indent=1) + "\n",
}
