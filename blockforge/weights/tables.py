"""Layouts as tables: a row says which official name stands behind one of ours.

    {"stages.{s}.layers.{l}.mlp.op.fc1": "layers.{s}.blocks.{l}.mlp.fc1"}

`{s}` stands for a number, and in the official name `{s-1}` or `{s+1}` for its neighbour. A row speaks of a
module, and so of all its tensors, or of one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Sources = Callable[[str], tuple[str, ...] | None]


def by_table(rows: Mapping[str, str]) -> Sources:
    """The `sources` of a `Family` (see `official`) that follows `rows`; the first one that fits holds."""
    compiled = [(_pattern(ours), official) for ours, official in rows.items()]

    def sources(key: str) -> tuple[str, ...] | None:
        for pattern, official in compiled:
            if match := pattern.fullmatch(key):
                return (_filled(official, match) + (match["leaf"] or ""),)
        return None

    return sources


def in_layers(rows: Mapping[str, str], official: str) -> dict[str, str]:
    """Rows for what stands in a layer, whose official name begins with `official`, from rows inside it."""
    return {f"stages.{{s}}.layers.{{l}}.{ours}": f"{official}.{theirs}" for ours, theirs in rows.items()}


def _pattern(ours: str) -> re.Pattern[str]:
    names = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(ours))
    return re.compile(names + r"(?P<leaf>\.[^.]+)?")


def _filled(official: str, match: re.Match[str]) -> str:
    return re.sub(r"\{(\w+)([+-]\d+)?\}", lambda m: str(int(match[m[1]]) + int(m[2] or 0)), official)
