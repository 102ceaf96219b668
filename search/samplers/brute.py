"""Enumeration: every candidate of a space with countable holes once, in random order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from blockforge.errors import SearchError
from blockforge.search.samplers.sampling import Choose, count, index_of, nth


@dataclass
class _Node:
    """A hole under given values of the holes before it; without a name, the end of a candidate."""

    size: int = 0
    below: dict[int, _Node] = field(default_factory=dict)
    done: bool = False


class Tree:
    """The candidates proposed so far. A hole may open others below it, so it is a tree and no grid."""

    def __init__(self) -> None:
        self.root = _Node()

    @property
    def exhausted(self) -> bool:
        """Whether there is no candidate left."""
        return self.root.done

    def add(self, trial: FrozenTrial) -> None:
        """Note a candidate. Spaces with a continuous hole have no tree."""
        if not trial.params:  # its line in a journal was lost
            return
        node, passed = self.root, [self.root]
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            size = count(distribution)
            if size is None:
                return
            node.size = size
            node = node.below.setdefault(index_of(distribution, value), _Node())
            passed.append(node)
        node.done = True
        for node in reversed(passed[:-1]):
            node.done = len(node.below) == node.size and all(n.done for n in node.below.values())


def unexplored(tree: Tree, rng: np.random.Generator) -> Choose:
    """Values that together make a candidate that was not proposed before."""
    place: list[_Node | None] = [tree.root]

    def choose(name: str, distribution: BaseDistribution) -> object:
        size = count(distribution)
        if size is None:
            raise SearchError(
                f"the hole '{name}' has no end of values: its space cannot be enumerated\n"
                "  hint: another --sampler, or give it a list of values"
            )
        node = place[0]
        below = node.below if node is not None else {}
        left = [i for i in range(size) if i not in below or not below[i].done] or list(range(size))
        index = left[rng.integers(len(left))]
        place[0] = below.get(index)
        return nth(distribution, index)

    return choose
