"""A storage that may be away for a while: a database that is restarted, a file that is locked, a disk that is full.

Every call is tried again, at the one place where storages are used, until the storage answers or patience ends. A write
whose answer was lost may have reached the storage, so each kind of write says what its second try has to look at.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from blockforge.errors import SearchError
from blockforge.search.optuna_private import trial_id as id_of

DATABASE, FILE = 600.0, 60.0
"""Seconds for which a database, and a file, may be away."""
_FIRST, _LONGEST, _LOOK = 0.5, 15.0, 0.2
_LASTING = ("ProgrammingError", "DataError", "IntegrityError", "NotSupportedError", "ArgumentError")
"""Errors of a database that no second try mends."""
_GRPC_LASTING = ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED",
                 "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED")  # fmt: skip
T = TypeVar("T")


class StorageAwayError(SearchError):
    """A storage that has not answered for as long as a search waits for it."""


def is_away(error: BaseException) -> bool:
    """Whether an error says that a storage does not answer now."""
    if isinstance(error, OSError):
        return True
    chain = list(causes(error))
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "grpc" in modules:
        code = getattr(error, "code", lambda: None)()
        return getattr(code, "name", "") not in _GRPC_LASTING
    if isinstance(error, StorageInternalError) or "sqlalchemy" in modules:
        return not any(type(e).__name__ in _LASTING for e in chain)
    return False


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def said(error: BaseException) -> str:
    """The line of an error that says most: that of the innermost cause."""
    innermost = list(causes(error))[-1]
    if callable(details := getattr(innermost, "details", None)):
        return str(details() or type(innermost).__name__)
    text = getattr(innermost, "strerror", None) or str(innermost).strip() or type(innermost).__name__
    return str(text).splitlines()[0]


class Patience:
    """Tries again what a storage that is away refuses.

    Args:
        what: the storage's name in messages.
        seconds: for how long; 0: not at all.
        given_up: looked at while waiting; once it is true, there is no further try.
    """

    def __init__(self, what: str, seconds: float, given_up: Callable[[], bool] = lambda: False) -> None:
        self.what, self.seconds, self.given_up = what, seconds, given_up

    def insist(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What `call` gives, or a later try of it.

        Args:
            again: what further tries call: a first one may have done its work before its answer was lost.
        Raises: StorageAwayError when patience ends; for a file the OSError itself. Any other error at once.
        """
        wait, since = _FIRST, None
        while True:
            try:
                answer = call()
                if since is not None:
                    _say(f"{self.what} answers again after {time.monotonic() - since:.0f} s")
                return answer
            except Exception as e:
                if not is_away(e):
                    raise
                now = time.monotonic()
                if since is None and self.seconds > 0:
                    _say(f"{self.what} does not answer ({said(e)}); trying again for {self.seconds:.0f} s")
                since = now if since is None else since
                if now - since >= self.seconds or self.given_up():
                    if isinstance(e, OSError):
                        raise
                    raise StorageAwayError(
                        f"the storage {self.what} has not answered for {now - since:.0f} s: {said(e)}\n"
                        "  hint: nothing that was finished is lost; the same command goes on"
                    ) from e
            self._sleep(min(wait, since + self.seconds - now) * random.uniform(0.75, 1.0))
            wait, call = min(_LONGEST, 1.6 * wait), again or call

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.given_up():
            time.sleep(min(left, _LOOK))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _again(name: str) -> Any:
    """A method of a storage for which a second try does no harm: it reads, or writes what it wrote before."""

    def method(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patience.insist(lambda: getattr(self.inner, name)(*args, **kwargs))

    method.__name__ = name
    return method


class PatientStorage(BaseStorage):
    """A storage whose calls outlive that it is away.

    Attributes:
        inner: the storage itself, without patience.
        flush: brings what was written to the disk, where that takes a call of its own.
    """

    def __init__(self, inner: BaseStorage, patience: Patience, sync: Callable[[], None] = lambda: None) -> None:
        self.inner, self.patience, self._sync = inner, patience, sync
        self._made = -1

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self.patience.insist(self._sync)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        assert study_name is not None

        def again() -> int:
            try:
                return self.inner.create_new_study(directions, study_name)
            except DuplicatedStudyError:
                return self.inner.get_study_id_from_name(study_name)

        return self.patience.insist(lambda: self.inner.create_new_study(directions, study_name), again)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        def make() -> int:
            return self.inner.create_new_trial(study_id, template_trial)

        def again() -> int:
            known = self._made_before(study_id, template_trial)
            return make() if known is None else known

        trial_id = self.patience.insist(make, again)
        self._made = max(self._made, trial_id)
        return trial_id

    def _made_before(self, study_id: int, template: FrozenTrial | None) -> int | None:
        """The trial that an attempt of this storage has made, whose answer was lost: newer than all others made here,
        and equal to what was wanted. Trials name their worker, so that of another one is never equal."""
        assert template is not None
        for trial in reversed(self.inner.get_all_trials(study_id, deepcopy=False)):
            same = trial.user_attrs == template.user_attrs and trial.params == template.params
            if id_of(trial) > self._made and same:
                return id_of(trial)
        return None

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        def again() -> bool:
            try:
                return self.inner.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = self.inner.get_trial(trial_id)
                if trial.state != state or (trial.values or None) != (list(values) if values else None):
                    raise
                return True

        return self.patience.insist(lambda: self.inner.set_trial_state_values(trial_id, state, values), again)

    def remove_session(self) -> None:
        self.inner.remove_session()

    delete_study = _again("delete_study")
    set_study_user_attr = _again("set_study_user_attr")
    set_study_system_attr = _again("set_study_system_attr")
    get_study_id_from_name = _again("get_study_id_from_name")
    get_study_name_from_id = _again("get_study_name_from_id")
    get_study_directions = _again("get_study_directions")
    get_study_user_attrs = _again("get_study_user_attrs")
    get_study_system_attrs = _again("get_study_system_attrs")
    get_all_studies = _again("get_all_studies")
    set_trial_param = _again("set_trial_param")
    get_trial_id_from_study_id_trial_number = _again("get_trial_id_from_study_id_trial_number")
    get_trial_number_from_id = _again("get_trial_number_from_id")
    set_trial_intermediate_value = _again("set_trial_intermediate_value")
    set_trial_user_attr = _again("set_trial_user_attr")
    set_trial_system_attr = _again("set_trial_system_attr")
    get_trial = _again("get_trial")
    get_all_trials = _again("get_all_trials")
