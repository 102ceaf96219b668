"""Optuna's TPE with a bounded cost a proposal.

Optuna computes, for each group of holes that occur together, which trials are good and what their values are, each
time anew and from all trials. Spaces with choices inside choices have dozens of groups. Here the groups grow with
the trials, values are looked up once a trial, and the split is made once a proposal. The proposals are Optuna's
own (a test compares them), as long as the sample holds all trials; see `History.sample`.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

STARTUP = 10
"""Finished trials before which candidates are random."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A trial, with what TPE asks for again and again."""

    trial: FrozenTrial
    number: int
    state: TrialState
    values: list[float] | None
    constraints: dict[str, float]
    internal: dict[str, float]
    intermediate_values: dict[int, float] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The only value."""
        return self.values[0] if self.values else None


def see(trial: FrozenTrial) -> Seen:
    """A trial as TPE sees it."""
    internal = {n: trial.distributions[n].to_internal_repr(v) for n, v in trial.params.items()}
    return Seen(trial, trial.number, trial.state, trial.values, trial.constraints, internal)


class Groups:
    """Holes that occur together, as far as the trials show it."""

    def __init__(self) -> None:
        self.group = _SearchSpaceGroup()
        self._known: set[tuple[str, ...]] = set()

    def add(self, trial: FrozenTrial) -> None:
        """Learn from a trial."""
        names = tuple(sorted(trial.distributions))
        if names not in self._known:
            self._known.add(names)
            self.group.add_distributions(trial.distributions)


class BoundedTPE(TPESampler):
    """One proposal of multivariate, grouped TPE from a sample of trials.

    Args:
        sample: finished and running trials, in the order of their numbers.
    """

    def __init__(self, sample: list[Seen], groups: Groups, seed: int) -> None:
        with warnings.catch_warnings():
            # Spaces with choices inside choices need `group`, which has been experimental since Optuna 2.8.
            message = "Argument ``group`` is an experimental"
            warnings.filterwarnings("ignore", message, category=optuna.exceptions.ExperimentalWarning)
            super().__init__(multivariate=True, group=True, constant_liar=False, seed=seed)
        self.seen, self._search_space_group = sample, groups.group
        self.finished = sum(s.state != TrialState.RUNNING for s in sample)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The holes of all groups, but for those with one value."""
        assert self._search_space_group is not None
        spaces = self._search_space_group.search_spaces
        return {n: d for space in spaces for n, d in sorted(space.items()) if not d.single()}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """A hole that no group has."""
        return self._sample(study, trial, {param_name: param_distribution})[param_name]

    def _sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._sample(study, trial, search_space) if search_space else {}

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        below, above = self._split(study)
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        others = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        found = self._compare(samples, self._compute_acquisition_func(samples, good, others))
        return {name: distribution.to_external_repr(found[name]) for name, distribution in search_space.items()}

    @functools.cache  # noqa: B019  (a sampler lives for one proposal)
    def _split(self, study: Study) -> tuple[list[Any], list[Any]]:
        gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return _split_trials(study, self.seen, gamma(self.finished))  # type: ignore[arg-type]

    def _get_internal_repr(
        self, trials: list[Any], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        first = next(iter(search_space))  # stands for its group, but not yet in trials that are running
        having = [
            t.internal
            for t in trials
            if first in t.internal and (t.state != TrialState.RUNNING or search_space.keys() <= t.internal.keys())
        ]
        return {name: np.asarray([values[name] for values in having]) for name in search_space}
