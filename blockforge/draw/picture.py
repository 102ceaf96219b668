"""Writes an architecture's graph to a file in the format that the file's name asks for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from blockforge.compiler.architecture import Architecture
from blockforge.draw.opening import opened
from blockforge.errors import BlockforgeError, did_you_mean

Engine = Literal["builtin", "dot"]
Write = Callable[[Architecture, Path], None]
_TIMEOUT_S = 120


class DrawError(BlockforgeError):
    """A graph that cannot be drawn as asked."""


def writer(suffix: str, engine: Engine = "builtin", patterns: Sequence[str] = (), parts: bool = False) -> Write:
    """What writes a graph to a file that ends in `suffix`.

    Args:
        engine: draws svg: the one built in, or graphviz's `dot`.
        patterns, parts: what is drawn as its parts, see `opening.opened`.
    Raises: DrawError for an ending that is not known, where dot is needed and missing, and for parts in JSON.
    """
    kind = suffix.removeprefix(".").lower()
    if kind not in (*_TEXT, "png"):
        known = did_you_mean(kind, [*_TEXT, "png"], what="endings")
        said = f"no picture or graph ends in '{suffix}'" if suffix else "the file needs an ending"
        raise DrawError(f"{said}\n  hint: {known}")
    if kind == "json" and (patterns or parts):
        raise DrawError("json holds the graph without parts\n  hint: write svg, png, dot or mmd")
    if kind == "png" or (kind == "svg" and engine == "dot"):
        dot = shutil.which("dot")
        if dot is None:
            hint = "install it (apt install graphviz, brew install graphviz), or write .svg with the built-in engine"
            raise DrawError(f"this picture needs graphviz's program 'dot', which is not installed\n  hint: {hint}")
        return lambda arch, path: _run_dot(dot, kind, arch.to_dot(opened(arch, patterns, parts)), path)
    return lambda arch, path: _write(path, _TEXT[kind](arch, opened(arch, patterns, parts)))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _run_dot(dot: str, kind: str, text: str, path: Path) -> None:
    command = [dot, f"-T{kind}", "-o", str(path)]
    try:
        done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DrawError(
            f"dot did not finish in {_TIMEOUT_S} s\n  hint: --engine builtin draws any svg at once"
        ) from None
    if done.returncode:
        raise DrawError(f"dot failed: {done.stderr.strip()[:500]}")


_TEXT: dict[str, Callable[[Architecture, tuple[str, ...]], str]] = {
    "svg": Architecture.to_svg,
    "dot": Architecture.to_dot,
    "mmd": Architecture.to_mermaid,
    "json": lambda arch, _: arch.to_json(indent=1) + "\n",
}
