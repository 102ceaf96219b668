"""Children of good candidates: their answers with some changed, a mixer, a stride, a width, a pattern.

Holes that open under a changed choice take any value; those that close are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from blockforge.search.samplers.choose import Choose, fixed, uniform
from blockforge.search.space.parameters import count, index_of, nth

POPULATION, TOURNAMENT = 48, 8
"""Candidates that parents come from, and how many there are before proposals are more than random."""
_NEAR = 0.5
"""How often a number moves to a neighbour and not anywhere."""


def child(parent: Mapping[str, Any], changed: set[str], rng: np.random.Generator) -> Choose:
    """The answers of a parent, but for the holes that change."""
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
