"""The candidates of a space that were proposed so far, as a tree: a hole may open others below it, so it is no grid."""

from __future__ import annotations

from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from blockforge.search.space.parameters import count, index_of


@dataclass
class Node:
    """A hole under given values of the holes before it; without a name, the end of a candidate."""

    size: int = 0
    below: dict[int, Node] = field(default_factory=dict)
    done: bool = False


class Tree:
    """The candidates proposed so far."""

    def __init__(self) -> None:
        self.root = Node()

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
            node = node.below.setdefault(index_of(distribution, value), Node())
            passed.append(node)
        node.done = True
        for node in reversed(passed[:-1]):
            node.done = len(node.below) == node.size and all(n.done for n in node.below.values())
