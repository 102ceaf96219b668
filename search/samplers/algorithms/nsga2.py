"""Crosses of the best candidates by rank and crowding.

Why not Optuna's `NSGAIISampler` (which a search takes, too): it goes by generations, which wait for their last trial,
and takes parents from evaluated trials alone; where a budget refuses most candidates it learns nothing from them.
"""

from __future__ import annotations

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from blockforge.search.samplers.base import ProposalSampler
from blockforge.search.samplers.choose import Choose, uniform
from blockforge.search.samplers.memory import Memory
from blockforge.search.samplers.mutation import POPULATION, TOURNAMENT, child


class SteadyStateNSGAII(ProposalSampler):
    """A cross of two of the best candidates by rank and crowding, with each hole changed now and then.

    The population is the best of all that was evaluated, replaced one by one and not in generations, so that no
    worker waits for another. Candidates over the budget count as worse than all others, the further over the worse.
    Reference: Deb et al., 2002; steady state as in Nebro and Durillo, 2009.
    """

    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        rng, population = np.random.default_rng(seeds), memory.elite(POPULATION)
        if len(population) < TOURNAMENT:
            return uniform(rng)
        mother, father = (memory.params(population[min(rng.integers(len(population), size=2))]) for _ in range(2))
        mixed = dict(mother)
        for name in sorted(father):
            if name not in mixed or rng.random() < 0.5:
                mixed[name] = father[name]
        changed = {name for name in sorted(mixed) if rng.random() < 1 / len(mixed)}
        return child(mixed, changed, rng)
