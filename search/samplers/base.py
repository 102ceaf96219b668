"""Samplers that make up their mind once a trial, from a bounded memory of the study.

They are samplers of Optuna's: `optuna.create_study(sampler=BoundedTPE(seed=0)).optimize(...)` takes them, and so does
every other study. A proposal depends on the seed and on the trials alone; a sampler keeps nothing of its own in
between, so a search that was stopped proposes what it would have proposed without the stop.
"""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.samplers.choose import Choose, is_uniform
from blockforge.search.samplers.memory import Memory

_KEPT = 128
"""Proposals that may be under way at once in one process."""


class ProposalSampler(BaseSampler):
    """Base of our samplers.

    Args:
        seed: of all proposals; None: drawn.
        stream: tells the workers of one seed apart; 0 is the only one, or the first.

    Attributes:
        variant: tells several proposals for one trial apart, where a search screens them; 0 is the first.
    """

    def __init__(self, seed: int | None = None, stream: int = 0) -> None:
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self.stream, self.variant = stream, 0
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._memories: WeakKeyDictionary[Study, Memory] = WeakKeyDictionary()
        self._proposals: dict[int, Choose] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    @abstractmethod
    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        """How the values of one candidate are chosen.

        Args:
            seeds: of this proposal alone.
        """

    def is_random(self, trial: FrozenTrial) -> bool:
        """Whether the proposal of a trial is a random one, as the first ones are."""
        return is_uniform(self._proposals.get(trial.number))

    def memory(self, study: Study) -> Memory:
        """What is known of a study."""
        if study not in self._memories:
            self._memories[study] = Memory(study.directions)
        return self._memories[study]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make up the mind."""
        with self._lock:
            memory = self.memory(study)
            memory.sync(study)
            place = trial.number - memory.interrupted  # two that are asked for at once have two numbers
            apart = [self.stream, self.variant] if self.variant else [self.stream] if self.stream else []
            seeds = [self.seed, place, *apart]
            self._proposals[trial.number] = self.propose(study, trial, memory, seeds)
            while len(self._proposals) > _KEPT:
                del self._proposals[next(iter(self._proposals))]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: holes may open one another, so each is chosen when it is met."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing; see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a hole in the proposal of its trial."""
        if trial.number not in self._proposals:
            self.before_trial(study, trial)
        return self._proposals[trial.number](param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forget the proposal."""
        self._proposals.pop(trial.number, None)


def proposal_of(sampler: BaseSampler, study: Study, trial: FrozenTrial) -> Choose:
    """What Optuna does between `ask` and `suggest`, by any sampler."""
    space = sampler.infer_relative_search_space(study, trial)
    together = sampler.sample_relative(study, trial, space)

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in together and space[name] == distribution:
            return together[name]
        return sampler.sample_independent(study, trial, name, distribution)

    return choose
