"""How a value is chosen for a hole: what samplers of ours are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def uniform(rng: np.random.Generator) -> Choose:
    """Any value, all alike."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[rng.integers(len(distribution.choices))]
        if isinstance(distribution, IntDistribution):
            return nth(distribution, int(rng.integers(count(distribution) or 1)))
        assert isinstance(distribution, FloatDistribution)
        low, high = distribution.low, distribution.high
        return (
            float(np.exp(rng.uniform(np.log(low), np.log(high)))) if distribution.log else float(rng.uniform(low, high))
        )

    return choose
