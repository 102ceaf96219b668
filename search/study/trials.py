"""Trials in a storage: written whole, ended once, and freed when their worker is dead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.study.patience import PatientStorage
from blockforge.search.study.records import DEATH, OUTCOME, WORKER, final_state


def make_trial(study: Study, template: FrozenTrial) -> int:
    """Put a trial into the storage, whole; its number."""
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)
    return study._storage.get_trial_number_from_id(trial_id)


def flush(study: Study) -> None:
    """Bring what was written to the disk, where the storage does not do so by itself."""
    if isinstance(study._storage, PatientStorage):
        study._storage.flush()


def close_trial(study: Study, number: int, outcome: Mapping[str, Any]) -> bool:
    """Write a trial's outcome and finish it; False if somebody else did, who took this worker for dead."""
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    try:
        storage.set_trial_user_attr(trial_id, OUTCOME, dict(outcome))
    except UpdateFinishedTrialError:
        return False
    return tell_outcome(study, trial_id, outcome)


def tell_outcome(study: Study, trial_id: int, outcome: Mapping[str, Any]) -> bool:
    """Finish a trial as its outcome says; False if it was finished."""
    return _finish(study, trial_id, final_state(outcome), outcome.get("values"))


def _finish(study: Study, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
    try:
        study._storage.set_trial_state_values(trial_id, state, values)
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
            tell_outcome(study, trial._trial_id, outcome)
        else:
            with contextlib.suppress(UpdateFinishedTrialError):
                if death is not None:
                    study._storage.set_trial_user_attr(trial._trial_id, DEATH, dict(death))
            _finish(study, trial._trial_id, TrialState.FAIL)
        freed.append(trial.number)
    return freed
