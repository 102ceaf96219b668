"""Layouts as tables: a row says which official name stands behind one of ours.

    {"stages.{s}.layers.{l}.mlp.op.fc1": "layers.{s}.blocks.{l}.mlp.fc1"}

`{s}` stands for a number, and in the official name `{s-1}` or `{s+1}` for its neighbour. A row speaks of a
module, and so of all its tensors, or of one tensor. Several official names are stacked: see `Family.sources`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

Sources = Callable[[str], tuple[str, ...] | None]
Names = str | tuple[str, ...]


def by_table(rows: Mapping[str, Names]) -> Sources:
    """The `sources` of a `Family` (see `official`) that follows `rows`; the first one that fits holds."""

    @functools.cache
    def compiled() -> list[tuple[re.Pattern[str], tuple[str, ...]]]:  # a checkpoint asks one layout of many
        return [(_pattern(ours), _several(official)) for ours, official in rows.items()]

    def sources(key: str) -> tuple[str, ...] | None:
        for pattern, official in compiled():
            if match := pattern.fullmatch(key):
                return tuple(_filled(name, match) + (match["leaf"] or "") for name in official)
        return None

    return sources


def in_layers(rows: Mapping[str, Names], official: str) -> dict[str, Names]:
    """Rows for what stands in a layer, whose official name begins with `official`, from rows inside it."""
    return {
        f"stages.{{s}}.layers.{{l}}.{ours}": tuple(f"{official}.{name}" for name in _several(theirs))
        for ours, theirs in rows.items()
    }


VIT_LAYER = {
    "attention.norm": "norm1",
    "attention.op.qkv": "attn.qkv",
    "attention.op.proj": "attn.proj",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
"""What stands in a layer of a vision transformer, as timm and most of those that follow it call it."""


def conv_bn(ours: str, conv: str, norm: str) -> dict[str, Names]:
    """Rows for a convolution and its norm, which std's definition of this name calls `conv` and `batch_norm`."""
    return {f"{ours}.conv": conv, f"{ours}.batch_norm": norm}


def dwconv_bn(ours: str, conv: str, norm: str) -> dict[str, Names]:
    """The same for a depth-wise one."""
    return {f"{ours}.dwconv": conv, f"{ours}.batch_norm": norm}


def numbered(ours: str, conv: str = "conv{}", norm: str = "bn{}", *, count: int = 3) -> dict[str, Names]:
    """Rows for the convolutions of a block in turn, with their norms; officially they are numbered from 1."""
    names = ("conv_bn", *(f"conv_bn_{i}" for i in range(2, count + 1)))
    rows = (conv_bn(f"{ours}.{name}", conv.format(i), norm.format(i)) for i, name in enumerate(names, 1))
    return {key: name for row in rows for key, name in row.items()}


def _several(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _pattern(ours: str) -> re.Pattern[str]:
    names = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(ours))
    return re.compile(names + r"(?P<leaf>\.[^.]+)?")


def _filled(official: str, match: re.Match[str]) -> str:
    return re.sub(r"\{(\w+)([+-]\d+)?\}", lambda m: str(int(match[m[1]]) + int(m[2] or 0)), official)
