"""The answers of a good candidate with one or two changed."""

from __future__ import annotations

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from blockforge.search.samplers.base import ProposalSampler
from blockforge.search.samplers.choose import Choose, uniform
from blockforge.search.samplers.memory import Memory
from blockforge.search.samplers.mutation import POPULATION, TOURNAMENT, child


class RegularizedEvolution(ProposalSampler):
    """The best of a few of the latest candidates, with one or two holes changed.

    Only age removes a candidate from the population, so a lucky score does not stay for ever.
    Reference: Real et al., AAAI 2019, https://arxiv.org/abs/1802.01548.
    """

    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        rng, population = np.random.default_rng(seeds), memory.latest(POPULATION)
        if len(population) < TOURNAMENT:
            return uniform(rng)
        chosen = rng.choice(len(population), TOURNAMENT, replace=False)
        parent = memory.params(memory.best_first([population[i] for i in sorted(chosen)])[0])
        changed = set(rng.choice(sorted(parent), size=min(len(parent), 1 + (rng.random() < 0.25)), replace=False))
        return child(parent, changed, rng)
