"""The ring around a sampler: what `ask` and `tell` of a study do, for trials that reach a storage once they are whole.

A sampler, ours or any of Optuna's, is asked for a trial that exists in memory alone (`PendingStorage`). What it notes
with that trial is written together with it. What it notes with the study goes to the study at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from blockforge.errors import BlockforgeError, SearchError
from blockforge.search.optuna_private import forget_cached_trials, reseed, storage_of, trial_id
from blockforge.search.registry.describe import describe
from blockforge.search.samplers.base import ProposalSampler, proposal_of
from blockforge.search.samplers.choose import Choose
from blockforge.search.space.parameters import member
from blockforge.search.study.patience import causes
from blockforge.search.workers.draft import Draft

_PENDING = -1
"""What `create_trial` calls a trial that is in no storage."""


def _passed_on(name: str) -> Any:
    def method(self: PendingStorage, *args: Any, **kwargs: Any) -> Any:
        return self.passed_on(name, *args, **kwargs)

    method.__name__ = name
    return method


class PendingStorage(BaseStorage):
    """A storage with one more trial, which is in memory alone.

    Args:
        shown: which of the trials a sampler is to see.
    """

    def __init__(self, inner: BaseStorage, shown: Callable[[FrozenTrial], bool] | None) -> None:
        self.inner, self.shown = inner, shown
        self.pending: FrozenTrial | None = None
        self.several = False
        """Whether trials have several values, or another one than they tell on their way, of which samplers then make
        nothing."""
        self._refused: BaseException | None = None

    def passed_on(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What the storage itself does."""
        try:
            return getattr(self.inner, name)(*args, **kwargs)
        except Exception as e:
            self._refused = e
            raise

    def has_raised(self, error: BaseException) -> bool:
        """Whether an error comes from the storage, and not from whoever uses it."""
        return self._refused is not None and any(cause is self._refused for cause in causes(error))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial: FrozenTrial = self._own if trial_id == _PENDING else self.passed_on("get_trial", trial_id)
        return trial

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self.passed_on("get_all_trials", study_id, deepcopy, states)
        if self.shown is not None:
            trials = [trial for trial in trials if self.shown(trial)]
        if self.several:
            trials = [_silent(trial) if trial.intermediate_values else trial for trial in trials]
        if self.pending is not None and (states is None or TrialState.RUNNING in states):
            trials = [*trials, self.pending]
        return trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == _PENDING:
            self._own.system_attrs[key] = value
        else:
            self.passed_on("set_trial_system_attr", trial_id, key, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == _PENDING:
            self._own.user_attrs[key] = value
        else:
            self.passed_on("set_trial_user_attr", trial_id, key, value)

    @property
    def _own(self) -> FrozenTrial:
        assert self.pending is not None
        return self.pending

    create_new_study = _passed_on("create_new_study")
    delete_study = _passed_on("delete_study")
    set_study_user_attr = _passed_on("set_study_user_attr")
    set_study_system_attr = _passed_on("set_study_system_attr")
    get_study_id_from_name = _passed_on("get_study_id_from_name")
    get_study_name_from_id = _passed_on("get_study_name_from_id")
    get_study_directions = _passed_on("get_study_directions")
    get_study_user_attrs = _passed_on("get_study_user_attrs")
    get_study_system_attrs = _passed_on("get_study_system_attrs")
    get_all_studies = _passed_on("get_all_studies")
    create_new_trial = _passed_on("create_new_trial")
    set_trial_param = _passed_on("set_trial_param")
    get_trial_id_from_study_id_trial_number = _passed_on("get_trial_id_from_study_id_trial_number")
    get_trial_number_from_id = _passed_on("get_trial_number_from_id")
    set_trial_state_values = _passed_on("set_trial_state_values")
    set_trial_intermediate_value = _passed_on("set_trial_intermediate_value")


def _silent(trial: FrozenTrial) -> FrozenTrial:
    """A trial without what was told on its way."""
    own = copy.copy(trial)
    own.intermediate_values = {}
    return own


class RungStorage(PendingStorage):
    """A storage as a pruner sees it: of one objective, with the trials of one rung. Values on the way of two rungs do
    not compare, and Optuna's pruners know one objective.

    Args:
        direction: of what is reported.
        place: of its values among those of a trial.
    """

    def __init__(self, inner: BaseStorage, direction: StudyDirection, place: int) -> None:
        super().__init__(inner, None)
        self.direction, self.place, self.rung = direction, place, 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # type: ignore[override]
        return [self.direction]

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = self.passed_on("get_all_trials", study_id, deepcopy, states)
        return [self._of_one(trial) for trial in trials if trial.user_attrs.get("rung", 0) == self.rung]

    def _of_one(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.values is None or len(trial.values) < 2:
            return trial
        own = copy.copy(trial)
        own.values = [trial.values[self.place]]
        return own


class _View(Study):
    """The study as a sampler sees it. It may end it at any time."""

    over = False

    def stop(self) -> None:
        self.over = True


class PrunerError(SearchError):
    """A pruner failed, which is no fault of the candidate that it was asked about."""


class Proposals:
    """Fresh candidates of a study.

    Args:
        shown: which of the study's trials a sampler of Optuna's is to see; None: all.
        reports: the direction of what is reported on the way, and its place among the values of a trial.
    """

    def __init__(
        self,
        study: Study,
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
        shown: Callable[[FrozenTrial], bool] | None = None,
        reports: tuple[StudyDirection, int] | None = None,
    ) -> None:
        self.sampler, self.pruner = sampler, pruner
        self.storage = PendingStorage(storage_of(study), None if isinstance(sampler, ProposalSampler) else shown)
        direction, place = reports or (study.directions[0], 0)
        self.storage.several = len(study.directions) > 1 or direction != study.directions[0]
        self.on_rung = RungStorage(storage_of(study), direction, place)
        self.pruned = Study(study.study_name, self.on_rung, sampler, pruner) if pruner is not None else None
        self.view = _View(study.study_name, self.storage, sampler, pruner)
        self._numbers: set[int] = set()

    @property
    def over(self) -> bool:
        """Whether the sampler has nothing more to propose."""
        return self.view.over

    def begin(self, draft: Draft, seeds: list[int], number: int, variant: int = 0) -> None:
        """Let the sampler choose the values of a draft.

        Args:
            seeds: of this proposal alone.
            number: that its trial will have, if no other worker is faster.
            variant: which of several proposals for that trial it is.
        """
        pending = create_trial(state=TrialState.RUNNING)
        pending.number = number
        pending.params, pending.distributions = draft.params, draft.distributions  # filled as it is asked
        self.storage.pending = pending
        forget_cached_trials(self.view)
        if isinstance(self.sampler, ProposalSampler):
            self.sampler.variant = variant
        else:
            reseed(self.sampler, seeds)
        with self._told():
            self.sampler.before_trial(self.view, pending)
            draft.choose = self._choose(proposal_of(self.sampler, self.view, pending))
        own = isinstance(self.sampler, ProposalSampler) and self.sampler.is_random(pending)
        draft.random = own or isinstance(self.sampler, RandomSampler)

    @property
    def pending(self) -> FrozenTrial | None:
        """The trial that is about to be written, if a sampler has proposed it; of several one is put back here."""
        return self.storage.pending

    @pending.setter
    def pending(self, trial: FrozenTrial | None) -> None:
        self.storage.pending = trial

    def _choose(self, chosen: Choose) -> Choose:
        def choose(name: str, distribution: BaseDistribution) -> Any:
            with self._told():
                return member(distribution, chosen(name, distribution), name)

        return choose

    def written(self, number: int) -> None:
        """The pending trial is in the storage now."""
        if self.storage.pending is not None:
            self._numbers.add(number)
            self.storage.pending = None

    def notes(self, constraints: dict[str, float], state: TrialState, values: Sequence[float] | None) -> dict[str, Any]:
        """What the sampler has noted with the pending trial; one that ends before anything is evaluated ends here."""
        pending = self.storage.pending
        if pending is None:
            return {}
        if state != TrialState.RUNNING:
            for name, by in constraints.items():
                pending.set_constraint(name, by)
            forget_cached_trials(self.view)
            with self._told():
                self.sampler.after_trial(self.view, pending, state, values)
            self.storage.pending = None
        return {key: value for key, value in pending.system_attrs.items() if not key.startswith("constraints")}

    def ended(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """A trial that the sampler has proposed is about to be told as ended."""
        if trial.number in self._numbers:
            self._numbers.discard(trial.number)
            forget_cached_trials(self.view)
            with self._told(), suppress(UpdateFinishedTrialError):  # somebody else told it
                self.sampler.after_trial(self.view, trial, state, values)

    def prunes(self, trial: FrozenTrial, value: float, step: int) -> bool:
        """Note a value on the way, and ask the pruner, if there is one, whether that is the end."""
        self.storage.set_trial_intermediate_value(trial_id(trial), step, value)
        if self.pruner is None or self.pruned is None:
            return False
        self.on_rung.rung = trial.user_attrs.get("rung", 0)
        try:
            return self.pruner.prune(self.pruned, self.storage.get_trial(trial_id(trial)))
        except BlockforgeError:
            raise
        except Exception as e:
            if self.storage.has_raised(e) or self.on_rung.has_raised(e):
                raise
            text = f"the pruner {describe(self.pruner)} failed: {type(e).__name__}: {e}"
            raise PrunerError(f"{text}\n  hint: another --pruner, or none") from e

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a sampler raises is no error of ours, and none of a candidate's."""
        try:
            yield
        except BlockforgeError:
            raise
        except (Exception, SystemExit) as e:
            if self.storage.has_raised(e):
                raise
            text = f"the sampler {describe(self.sampler)} failed: {type(e).__name__}: {e}"
            hint = "another --sampler; blockforge's own take every space"
            if isinstance(e, ModuleNotFoundError) and e.name:  # Optuna imports what a sampler needs when it proposes
                hint = f"pip install {e.name.partition('.')[0]}, which this sampler needs; or {hint}"
            raise SearchError(f"{text}\n  hint: {hint}") from e
