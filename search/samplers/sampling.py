"""Holes -> Optuna's parameters, and the samplers that propose values for them.

A proposal is made in memory and reaches the storage as one record when its network is known, so that no other
worker ever sees half a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from blockforge.spec import Hole

if TYPE_CHECKING:
    from blockforge.search.study.history import History

Choose = Callable[[str, BaseDistribution], Any]
"""Gives a value for a hole, by its name and what Optuna calls its range."""


class Draft:
    """A candidate in the making: what the compiler asks for, and what it was answered."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.answers: dict[str, Any] = {}
        self.mended: Mapping[str, Any] = {}

    def mend(self, answers: Mapping[str, Any]) -> Callable[[Hole], Any]:
        """Begin anew with answers that relations have changed: what is kept of the candidate is what it has become."""
        self.params, self.distributions, self.answers, self.mended = {}, {}, {}, answers
        return self.ask

    def ask(self, hole: Hole) -> Any:
        """The label or number for a hole; the same one whenever it is met."""
        if hole.name not in self.answers:
            distribution = distribution_of(hole)
            if hole.name in self.mended:
                value = scalar_of(hole, self.mended[hole.name])
            else:
                value = _only(distribution) if distribution.single() else self.choose(hole.name, distribution)
            self.params[hole.name], self.distributions[hole.name] = value, distribution
            self.answers[hole.name] = label_of(hole, value)
        return self.answers[hole.name]

    def trial(self, state: TrialState, **more: Any) -> FrozenTrial:
        """The record of it, for the storage."""
        return create_trial(state=state, params=self.params, distributions=self.distributions, **more)


def distribution_of(hole: Hole) -> BaseDistribution:
    """The range of a hole, as Optuna states it."""
    if hole.kind == "int":
        return IntDistribution(int(hole.low), int(hole.high), step=hole.step)
    if hole.kind in ("float", "log"):
        return FloatDistribution(hole.low, hole.high, log=hole.kind == "log")
    return CategoricalDistribution(_scalars(hole))


def label_of(hole: Hole, value: Any) -> Any:
    """What the compiler calls the value that Optuna keeps for `hole`."""
    return hole.labels[_scalars(hole).index(value)] if hole.kind == "choice" else value


def scalar_of(hole: Hole, label: Any) -> Any:
    """What Optuna keeps for what the compiler calls `label`."""
    return _scalars(hole)[hole.index(label)] if hole.kind == "choice" else label


def _scalars(hole: Hole) -> tuple[Any, ...]:
    """The labels as Optuna sees them. By ==, which Optuna uses, 1 and true are equal: such go by text."""
    distinct = len(set(hole.labels)) == len(hole.labels)
    return hole.labels if distinct else tuple(repr(label) for label in hole.labels)


def _only(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return distribution.low


def fixed(params: Mapping[str, Any], otherwise: Choose) -> Choose:
    """The given values, where they lie in their ranges."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in params and distribution._contains(distribution.to_internal_repr(params[name])):
            return params[name]
        return otherwise(name, distribution)

    return choose


def uniform(rng: np.random.Generator) -> Choose:
    """Any value, all alike."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[rng.integers(len(distribution.choices))]
        if isinstance(distribution, IntDistribution):
            return _nth(distribution, int(rng.integers(count(distribution) or 1)))
        assert isinstance(distribution, FloatDistribution)
        low, high = distribution.low, distribution.high
        return (
            float(np.exp(rng.uniform(np.log(low), np.log(high)))) if distribution.log else float(rng.uniform(low, high))
        )

    return choose


def count(distribution: BaseDistribution) -> int | None:
    """How many values a range has; None: infinitely many."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    return None


def nth(distribution: BaseDistribution, index: int) -> Any:
    """The value number `index` of a range that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, IntDistribution)
    return _nth(distribution, index)


def index_of(distribution: BaseDistribution, value: Any) -> int:
    """The number of a value in a range that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    assert isinstance(distribution, IntDistribution)
    return (int(value) - distribution.low) // distribution.step


def _nth(distribution: IntDistribution, index: int) -> int:
    return distribution.low + index * distribution.step


def chooser(sampler: str, history: History, seeds: list[int]) -> Choose:
    """How a fresh candidate is proposed. While there is too little to learn from, all samplers of one seed propose what
    `random` does, so that a comparison of them begins with the same candidates.

    Args:
        seeds: of this proposal alone. A search that was stopped and goes on then proposes what it would have
            proposed without the stop; a sampler keeps nothing of its own in between.
    """
    from blockforge.search.samplers import brute, evolution, tpe

    rng = np.random.default_rng(seeds)
    if sampler == "evolution":
        return evolution.regularised(history, rng)
    if sampler == "nsga2":
        return evolution.nsga2(history, rng)
    if sampler == "brute":
        return brute.unexplored(history.tree, rng)
    sample = history.sample() if sampler == "tpe" else []
    if sum(seen.state != TrialState.RUNNING for seen in sample) < tpe.STARTUP:
        return uniform(rng)
    own = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    return _by_optuna(tpe.BoundedTPE(sample, history.groups, own), history.study)


def _by_optuna(sampler: BaseSampler, study: Study) -> Choose:
    """What Optuna does between `ask` and `suggest`, for a trial that no storage knows yet."""
    trial = create_trial(state=TrialState.RUNNING)
    space = sampler.infer_relative_search_space(study, trial)
    found = sampler.sample_relative(study, trial, space)

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in found and space[name] == distribution:
            return found[name]
        return sampler.sample_independent(study, trial, name, distribution)

    return choose
