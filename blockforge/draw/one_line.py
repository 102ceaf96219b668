"""What a block does, in one line of text: `dwconv 7x7 > layer_norm > linear 384, gelu > linear 96`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from blockforge.blocks.compose.members import called_by, named
from blockforge.compiler.graph.nodes import Node
from blockforge.draw.opened_block import MAX_PIECES, Group

_LINE = 110


def members_of(node: Node, most: int) -> str:
    """The ops of a list by their names, as far as there is room."""
    written: Any = node.block
    return _cut([called_by(member) for _, member in named(written.of)], " > ", most)


def in_one_line(groups: Sequence[Group], most: int = _LINE) -> str:
    """`dwconv 7x7 > layer_norm > linear 384, gelu > linear 96`; ops side by side as `(a | b) > sum`.

    Where ways cross, so that this cannot be said, the ops are only counted.
    """
    said = {group.name: ", ".join(group.lines) for group in groups}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(said)
    graph.add_edges_from((source, group.name) for group in groups for source in group.inputs)
    try:
        words = _Words(graph, said, groups[-1].name).between(groups[0].name) if len(groups) <= MAX_PIECES else None
    except _CrossingError:
        words = None
    if words is None:
        counted = Counter(said[group.name] for group in groups[1:])
        return _cut([f"{n}x {text}" if n > 1 else text for text, n in counted.items()], "; ", most)
    return _cut([*words, said[groups[-1].name]] if len(groups) > 1 else ["identity"], " > ", most)


class _CrossingError(Exception):
    """Ways cross: a group is met twice."""


class _Words:
    """Says each group once, those side by side in parentheses."""

    def __init__(self, graph: nx.DiGraph[str], said: Mapping[str, str], last: str) -> None:
        self.graph, self.said, self.last = graph, said, last
        self.meets = nx.immediate_dominators(graph.reverse(), last)  # where all ways behind a group come together
        self.seen: set[str] = set()

    def between(self, at: str, end: str | None = None) -> list[str]:
        """What lies behind a group and before another. Raises: _CrossingError."""
        end, words = self.last if end is None else end, []
        while at != end:
            following, after = list(self.graph.successors(at)), self.meets[at]
            if len(following) > 1:
                sides = (self._side(first, after) for first in sorted(following, key=lambda n: n == after))
                words.append(f"({' | '.join(sides)})")
            if after != end:
                words.append(self._say(after))
            at = after
        return words

    def _side(self, first: str, end: str) -> str:
        return "identity" if first == end else " > ".join([self._say(first), *self.between(first, end)])

    def _say(self, name: str) -> str:
        if name in self.seen:
            raise _CrossingError
        self.seen.add(name)
        return self.said[name]


def _cut(words: list[str], between: str, most: int) -> str:
    text = between.join(words)
    return text if len(text) <= most else text[: most - 4].rsplit(" ", 1)[0] + " ..."
