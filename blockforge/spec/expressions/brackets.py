"""Where an expression `$(...)` ends in a text: at the bracket that closes its first one, outside of quotes."""

from __future__ import annotations

import re

_PIECE = re.compile(r"'[^']*'|\"[^\"]*\"|[()\[\]]")


def closing(text: str) -> int | None:
    """The index of the `)` that closes `$(` at the start of `text`; None where none does."""
    depth = 0
    for piece in _PIECE.finditer(text):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(piece[0], 0)
        if not depth and piece[0] in ")]":
            return piece.start()
    return None
