"""Enumeration: every candidate of a space with countable holes once, in random order.

Why not Optuna's `BruteForceSampler` (which a search takes, too): it builds its tree of candidates anew from all trials
for every single hole, so that a proposal takes longer with each trial; ours grows with the trials.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.errors import SearchError
from blockforge.search.samplers.base import ProposalSampler
from blockforge.search.samplers.choose import Choose
from blockforge.search.samplers.memory import Memory
from blockforge.search.space.parameters import count, nth
from blockforge.search.space.tree import Node, Tree

_LISTED = 4096
"""Values of a hole of which those that are left are listed; of more, one is drawn until it is left."""


class Enumeration(ProposalSampler):
    """Candidates that were not proposed before, until there is none left; then `study.optimize` ends."""

    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        return unexplored(memory.tree, np.random.default_rng(seeds))

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """End the study with its last candidate."""
        super().after_trial(study, trial, state, values)
        memory = self.memory(study)
        memory.sync(study)
        memory.tree.add(trial)
        if memory.tree.exhausted:
            with contextlib.suppress(RuntimeError):  # nothing to stop outside of `optimize`
                study.stop()


def unexplored(tree: Tree, rng: np.random.Generator) -> Choose:
    """Values that together make a candidate that was not proposed before."""
    place: list[Node | None] = [tree.root]

    def choose(name: str, distribution: BaseDistribution) -> object:
        size = count(distribution)
        if size is None:
            raise SearchError(
                f"the hole '{name}' has no end of values: its space cannot be enumerated\n"
                "  hint: another --sampler, or give it a list of values"
            )
        node = place[0]
        below = node.below if node is not None else {}
        index = _left(size, {i for i, child in below.items() if child.done}, rng)
        place[0] = below.get(index)
        return nth(distribution, index)

    return choose


def _left(size: int, done: set[int], rng: np.random.Generator) -> int:
    """One of so many that is not done; any, if all are."""
    if size <= _LISTED:
        left = [i for i in range(size) if i not in done] or list(range(size))
        return left[rng.integers(len(left))]
    while (index := int(rng.integers(size))) in done and len(done) < size:  # soon: few of so many are done
        pass
    return index
