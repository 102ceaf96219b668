"""The study on disk: an Optuna journal in the output folder, its locks, and what a killed run leaves behind.

DIR/study.journal        one JSON line for each change
DIR/study.journal.lock   held while a line is written
DIR/study.lock           held by the search that works on the folder
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.errors import SearchError
from blockforge.search.records import MAX_RETRIES, final_state

JOURNAL = "study.journal"
_STUDY = "search"
_IDENTITY = "identity"


class KernelLock:
    """A lock on a file that the kernel releases when its process dies, however it dies.

    Optuna's own locks are files that a killed process leaves behind; the next one then waits 30 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False if another process has it."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Journal(JournalFileBackend):
    """Optuna's journal file with a lock that no dead process holds, and one fsync a trial, not one a line.

    Lines reach the kernel at once, so that a killed process loses none. A power failure may lose what came
    after the last `sync`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.kernel_lock = path, KernelLock(path.with_name(path.name + ".lock"))
        super().__init__(str(path), lock_obj=self.kernel_lock)  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self.kernel_lock.acquire()
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode("utf-8"))
        finally:
            self.kernel_lock.release()

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


def cut_torn_line(path: Path) -> int:
    """Cut a journal back to its last newline; how many bytes that took.

    A power failure or a full disk may leave half a line. Optuna 5.0 would append to it and never open the
    study again.
    """
    with open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        return size - end


@contextlib.contextmanager
def working_in(folder: Path | None) -> Iterator[None]:
    """Hold `folder` for one search.

    Raises: SearchError if another process works in it, or it cannot be written.
    """
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = KernelLock(folder / "study.lock")
        free = lock.acquire(wait=False)
    except OSError as e:
        raise SearchError(f"cannot write in {folder}: {e.strerror}") from None
    if not free:
        raise SearchError(f"another search is running in {folder}\n  hint: wait for it, or give another --out")
    try:
        yield
    finally:
        lock.release()


def open_storage(folder: Path | None) -> tuple[BaseStorage, Journal | None]:
    """The journal in `folder`, mended if it was torn; without a folder, a storage in memory."""
    if folder is None:
        return InMemoryStorage(), None
    path = folder / JOURNAL
    if path.exists():
        cut_torn_line(path)
    journal = Journal(path)
    try:
        return JournalStorage(journal), journal
    except (ValueError, KeyError) as e:
        raise SearchError(f"{path} is not a study that can be read: {e}") from None


def stored_identity(folder: Path | None) -> dict[str, Any] | None:
    """What the study in `folder` was started with; None if there is none. Call it inside `working_in`."""
    if folder is None or not (folder / JOURNAL).exists():
        return None
    storage, _ = open_storage(folder)
    for study in storage.get_all_studies():
        if study.study_name == _STUDY:
            return study.user_attrs.get(_IDENTITY)
    return None


def open_study(storage: BaseStorage, identity: Mapping[str, Any], space_differs_at: Sequence[str] = ()) -> Study:
    """The study in `storage`, made if there is none.

    Args:
        identity: what must be equal for a study to go on.
        space_differs_at: paths to name in the error if the spaces differ.
    Raises: SearchError if the study was started with another identity; says what differs.
    """
    study = optuna.create_study(storage=storage, study_name=_STUDY, direction="maximize", load_if_exists=True)
    known = study.user_attrs.get(_IDENTITY)
    if known is None:
        study.set_user_attr(_IDENTITY, dict(identity))
    elif known != identity:
        raise SearchError(_mismatch(known, identity, space_differs_at))
    return study


def _mismatch(known: Mapping[str, Any], identity: Mapping[str, Any], space_differs_at: Sequence[str]) -> str:
    lines = ["the folder holds the study of another search:"]
    for key in {**known, **identity}:
        if known.get(key) != identity.get(key):
            lines.append(f"  {key}: the study has {_shown(known.get(key))}, this run {_shown(identity.get(key))}")
            if key == "space" and space_differs_at:
                more = ", ..." if len(space_differs_at) > 6 else ""
                lines.append(f"    they differ at {', '.join(space_differs_at[:6])}{more}")
    return "\n".join([*lines, "  hint: give another --out, or the settings that the study was started with"])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{v} {k}" for k, v in value.items()) or "none"
    return str(value)


def give_up(study: Study, trial: FrozenTrial | optuna.Trial, retries: int) -> None:
    """Tell a trial that was not finished as failed, and queue its candidate again if it was being evaluated.

    Args:
        retries: how often the candidate has been tried again, this time included.

    The queue comes first: a crash between the two then costs a repetition and no trial.
    """
    queued = any(t.user_attrs.get("retry_of") == trial.number for t in study.get_trials(deepcopy=False))
    if "arch" in trial.user_attrs and retries <= MAX_RETRIES and not queued:
        study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, "retries": retries})
    study.tell(trial.number, state=TrialState.FAIL)


def tell_outcome(study: Study, number: int, outcome: Mapping[str, Any]) -> FrozenTrial:
    """Finish a trial as its outcome says."""
    state = final_state(outcome)
    return study.tell(number, outcome["score"] if state == TrialState.COMPLETE else None, state)


def recover(study: Study) -> int:
    """Finish the trials that a killed run left open; how many.

    One whose outcome was written is told as it ended. Any other is given up and retried, twice at most.
    """
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in left:
        outcome, retries = trial.user_attrs.get("outcome"), trial.user_attrs.get("retries", 0)
        if outcome is None:
            give_up(study, trial, retries + 1)
        elif outcome["state"] == "interrupted":
            give_up(study, trial, retries)
        else:
            tell_outcome(study, trial.number, outcome)
    return len(left)
