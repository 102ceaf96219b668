"""How a value is chosen for a hole: what samplers of ours are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from blockforge.search.optuna_private import contains
from blockforge.search.space.parameters import count, nth

Choose = Callable[[str, BaseDistribution], Any]
"""Gives a value for a hole, by its name and what Optuna calls its range."""


def fixed(params: Mapping[str, Any], otherwise: Choose) -> Choose:
    """The given values, where they lie in their ranges."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in params and contains(distribution, params[name]):
            return params[name]
        return otherwise(name, distribution)

    return choose


@dataclass(frozen=True)
class _Uniform:
    rng: np.random.Generator

    def __call__(self, name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[self.rng.integers(len(distribution.choices))]
        if isinstance(distribution, IntDistribution):
            return nth(distribution, int(self.rng.integers(count(distribution) or 1)))
        assert isinstance(distribution, FloatDistribution)
        low, high = distribution.low, distribution.high
        if distribution.log:
            return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        return float(self.rng.uniform(low, high))


def uniform(rng: np.random.Generator) -> Choose:
    """Any value, all alike."""
    return _Uniform(rng)


def is_uniform(choose: Choose | None) -> bool:
    """Whether values are chosen so: at random, whatever is known of other candidates."""
    return isinstance(choose, _Uniform)
