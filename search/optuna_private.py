"""Every private name of Optuna that we use, in this one file.

Tried with Optuna 5.0.0; `pyproject.toml` allows 5.x. A test holds that no other file here says such a name, so that
what a new version breaks is looked for here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

# --- what a study and a trial are in a storage


def storage_of(study: Study) -> BaseStorage:
    """The storage that a study is in, as it was given: a study has no public name for it."""
    return study._storage


def study_id(study: Study) -> int:
    """What its storage calls a study."""
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    """What its storage calls a trial."""
    return trial._trial_id


def forget_cached_trials(study: Study) -> None:
    """Let a study look at its storage again, as `Study.ask` does: for the length of a proposal it keeps a copy."""
    study._thread_local.cached_all_trials = None


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a range has a value."""
    return distribution._contains(distribution.to_internal_repr(value))


def engine_of(storage: BaseStorage) -> Any:
    """The connections of a database, which it does not close by itself; None: it has none."""
    return getattr(getattr(storage, "_backend", None), "engine", None)


# --- random numbers


def reseed(sampler: BaseSampler, seeds: list[int]) -> None:
    """Begin the random numbers of any of Optuna's samplers anew, and those of the samplers inside it: each proposal
    then depends on the study and the seed alone, and not on what this process has proposed before.

    Args:
        seeds: of this proposal; the first is that of the search.
    """
    for number, part in enumerate(_random_parts(sampler, set())):
        if isinstance(part, QMCSampler):  # scrambled, its one sequence is that of all proposals, whoever makes them
            part._seed = int(np.random.SeedSequence(seeds[:1]).generate_state(1)[0])
        else:
            part.rng.seed(int(np.random.SeedSequence([*seeds, number]).generate_state(1)[0]))


def _random_parts(sampler: BaseSampler, seen: set[int]) -> Iterable[LazyRandomState | QMCSampler]:
    seen.add(id(sampler))
    for value in list(vars(sampler).values()):
        if isinstance(value, LazyRandomState):
            yield value
        elif isinstance(value, BaseSampler) and id(value) not in seen:
            yield from _random_parts(value, seen)
    if isinstance(sampler, QMCSampler):
        yield sampler


# --- TPE, with what it computes anew and from all trials computed once


class Groups:
    """Holes that occur together, as far as the trials show it; grown with the trials."""

    def __init__(self) -> None:
        self.group = _SearchSpaceGroup()
        self._known: set[tuple[str, ...]] = set()

    def add(self, trial: FrozenTrial) -> None:
        """Learn from a trial."""
        names = tuple(sorted(trial.distributions))
        if names not in self._known:
            self._known.add(names)
            self.group.add_distributions(trial.distributions)


class OneProposal(TPESampler):
    """One proposal of multivariate, grouped TPE from a sample of trials.

    Args:
        sample: finished and running trials, in the order of their numbers; see `tpe.Seen`.
    """

    def __init__(self, sample: list[Any], groups: Groups, seed: int) -> None:
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
        best = self._compare(samples, self._compute_acquisition_func(samples, good, others))
        return {name: distribution.to_external_repr(best[name]) for name, distribution in search_space.items()}

    @functools.cache  # noqa: B019  (a sampler lives for one proposal)
    def _split(self, study: Study) -> tuple[list[Any], list[Any]]:
        gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return _split_trials(study, self.seen, gamma(self.finished))

    def _get_internal_repr(
        self, trials: list[Any], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, npt.NDArray[np.float64]]:
        first = next(iter(search_space))  # stands for its group, but not yet in trials that are running
        having = [
            t.internal
            for t in trials
            if first in t.internal and (t.state != TrialState.RUNNING or search_space.keys() <= t.internal.keys())
        ]
        return {name: np.asarray([values[name] for values in having]) for name in search_space}
