"""Samplers that change the answers of good candidates: a mixer, a stride, a width, a pattern.

Holes that open under a changed choice take any value; those that close are dropped.

Why not Optuna's `NSGAIISampler` (which a search takes, too): it goes by generations, which wait for their last trial,
and takes parents from evaluated trials alone; where a budget refuses most candidates it learns nothing from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from blockforge.search.samplers.base import ProposalSampler
from blockforge.search.samplers.choose import Choose, fixed, uniform
from blockforge.search.samplers.memory import Memory
from blockforge.search.space.parameters import count, index_of, nth

POPULATION, TOURNAMENT = 48, 8
_NEAR = 0.5
"""How often a number moves to a neighbour and not anywhere."""


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
        return _child(parent, changed, rng)


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
        return _child(mixed, changed, rng)


def _child(parent: Mapping[str, Any], changed: set[str], rng: np.random.Generator) -> Choose:
    inherit = fixed(parent, uniform(rng))

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in changed and name in parent:
            return mutated(parent[name], distribution, rng)
        return inherit(name, distribution)

    return choose


def mutated(value: Any, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Another value of the same range: a neighbour or any for a number, any for a choice."""
    if isinstance(distribution, FloatDistribution):
        return uniform(rng)("", distribution)
    size = count(distribution)
    assert size is not None
    here = index_of(distribution, value)
    if not 0 <= here < size:
        return uniform(rng)("", distribution)
    assert isinstance(distribution, CategoricalDistribution | IntDistribution)
    if isinstance(distribution, IntDistribution) and rng.random() < _NEAR:
        beside = [i for i in (here - 1, here + 1) if 0 <= i < size]
        return nth(distribution, beside[rng.integers(len(beside))])
    other = int(rng.integers(size - 1))
    return nth(distribution, other + (other >= here))
