"""Trials in a storage: written whole, ended once, and freed when their worker is dead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.optuna_private import storage_of, study_id, trial_id
from blockforge.search.study.patience import PatientStorage
from blockforge.search.study.records import DEATH, OUTCOME, REASON, WORKER, final_state


def make_trial(study: Study, template: FrozenTrial) -> int:
    """Put a trial into the storage, whole; its number."""
    storage = storage_of(study)
    return storage.get_trial_number_from_id(storage.create_new_trial(study_id(study), template_trial=template))


def flush(study: Study) -> None:
    """Bring what was written to the disk, where the storage does not do so by itself."""
    if isinstance(storage := storage_of(study), PatientStorage):
        storage.flush()


def close_trial(study: Study, number: int, outcome: Mapping[str, Any]) -> bool:
    """Write a trial's outcome and finish it; False if somebody else did, who took this worker for dead."""
    storage = storage_of(study)
    own = storage.get_trial_id_from_study_id_trial_number(study_id(study), number)
    try:
        storage.set_trial_user_attr(own, OUTCOME, dict(outcome))
        for name, value in _shown(outcome):
            storage.set_trial_user_attr(own, name, value)
    except UpdateFinishedTrialError:
        return False
    return tell_outcome(study, own, outcome)


def _shown(outcome: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of an outcome people look for beside the values: why there are none, and figures that nobody ranks by."""
    if outcome.get(REASON) is not None:
        yield REASON, outcome[REASON]
    values = outcome.get("values") or []
    yield from ((name, figure) for name, figure in outcome.get("figures", {}).items() if figure not in values)


def tell_outcome(study: Study, own: int, outcome: Mapping[str, Any]) -> bool:
    """Finish a trial as its outcome says; False if it was finished. `own` is its id in the storage."""
    return _finish(study, own, final_state(outcome), outcome.get("values"))


def _finish(study: Study, own: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
    try:
        storage_of(study).set_trial_state_values(own, state, values)
    except UpdateFinishedTrialError:
        return False
    return True


def recover(study: Study, dead: Callable[[set[str]], set[str]], death: Mapping[str, Any] | None = None) -> list[int]:
    """Finish the trials that dead workers left open; which.

    One whose outcome was written is told as it ended. Any other is told as failed and so waits for a retry.

    Args:
        dead: says which of some workers are.
        death: what is known of how the worker died, `{"reason": ..., "trace": ...}`.
    """
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    gone = dead({t.user_attrs.get(WORKER, "") for t in left})
    freed = []
    for trial in (t for t in left if t.user_attrs.get(WORKER, "") in gone):
        outcome = trial.user_attrs.get(OUTCOME)
        if outcome is not None:
            tell_outcome(study, trial_id(trial), outcome)
        else:
            with contextlib.suppress(UpdateFinishedTrialError):
                if death is not None:
                    storage_of(study).set_trial_user_attr(trial_id(trial), DEATH, dict(death))
            _finish(study, trial_id(trial), TrialState.FAIL)
        freed.append(trial.number)
    return freed
