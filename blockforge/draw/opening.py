"""Which blocks of a network a picture opens."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from blockforge.draw.layout import label
from blockforge.draw.opened_block import opens, pieces_of
from blockforge.errors import BlockforgeError, did_you_mean

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture
    from blockforge.compiler.graph.nodes import Node


def opened(arch: Architecture, patterns: Sequence[str] = (), parts: bool = False) -> tuple[str, ...]:
    """The nodes to open, in their order.

    Args:
        patterns: of names of nodes (`stages.0.layers.0.*`) or of blocks (`se`), with `*` and `?`.
        parts: the first block of each kind.
    Raises: BlockforgeError for a pattern that no block made of parts has.
    """
    known = {node.name: node for node in arch.nodes.values() if opens(node)}
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {name for name, node in known.items() if any(fnmatchcase(n, pattern) for n in _names(node))}
        if not matches:
            names = dict.fromkeys(node.name if "." in pattern else label(node) for node in known.values())
            hint = did_you_mean(pattern, names, what="made of parts are") if names else "none is made of parts"
            raise BlockforgeError(f"no block to open is called '{pattern}'\n  hint: {hint}")
        chosen |= matches
    if parts:
        first: dict[Any, str] = {}
        for node in known.values():
            first.setdefault(_kind(node), node.name)
        chosen |= set(first.values())
    return tuple(name for name in known if name in chosen)


def _names(node: Node) -> tuple[str, ...]:
    return node.name, label(node)


def _kind(node: Node) -> Any:
    """What blocks of a kind have in common: their parts and how these are joined, not how wide they are."""
    return label(node), tuple((piece.name, piece.kind, piece.inputs) for piece in pieces_of(node))
