"""What other languages write where an expression is to stand, and what stands here in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable

from blockforge.errors import did_you_mean

_CONSTANTS = {
    "true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false",
    "none": "none", "null": "none", "nil": "none",
}  # fmt: skip
_PIECES = {
    r"\*\*|\^": "x * x is a square; there is no sign for powers",
    r"!==|<>|/=|\bis\s+not\b": "write !=",
    r"===|\bis\b": "write ==",
    r"=>|=<": "write >= or <=",
    r"&&?|\bAND\b": "write and",
    r"\|\|?|\bOR\b": "write or",
    r"[!~](?!=)|\bNOT\b": "write not",
    r"(?<![=!<>])=(?!=)": "== compares",
    r"\?": "write a if c else b",
    r"\bnot\s+in\b|\bin\b(?=\s*[\[(])": "compare with each, as in M == 1 or M == 2",
    r"\b(?:int|float|trunc)\s*\(": "floor, ceil and round make whole numbers",
    r"\b[A-Za-z_][\w.]*\s*\(": "functions: {functions}",
    r"\[[^\]]*\]?": "a list has a name in let; name[0] is its first value",
    r"'|\"": "quotes begin and end a text",
    r"\b(?!\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]))\d[\w.]*": "numbers are written as 12, 0.5 or 1e-3",
}
"""Patterns of pieces, those first that may hold others."""


def instead(text: str, column: int, functions: Iterable[str]) -> str | None:
    """What to write in place of the piece of `text` at a column; None: it is of no language that is known."""
    for pattern, hint in _PIECES.items():
        if any(piece.start() <= column < piece.end() for piece in re.finditer(pattern, text, re.ASCII)):
            return hint.format(functions=", ".join(functions))
    return None


def constant(name: str) -> str | None:
    """What a name is here that is a constant elsewhere."""
    return _CONSTANTS.get(name.lower())


def known_names(name: str, known: Iterable[object], what: str) -> str:
    """What to do about a name that nobody knows: `write true; names: ratio`."""
    listed = did_you_mean(name, known, what=what)
    return f"write {word}; {listed}" if (word := constant(name)) else listed
