"""Leases: a worker says now and then that it is alive; the trials of one that stopped saying so are free.

Optuna has heartbeats only for databases and only inside `optimize`. Ours stand in the study itself, so they work
with every storage: the attribute `worker:ID` of the study counts up. Whoever looks at it compares what it sees with
what it saw before, by a clock of its own, so clocks need not agree between machines. On the machine of a worker the
end of its process is seen at once; one that is stopped or hangs says nothing, as if it were dead.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study

from blockforge.search.optuna_private import storage_of, study_id
from blockforge.search.study.config import LEASE
from blockforge.search.study.patience import PatientStorage

_PREFIX = "worker:"
_ALIVE_HERE: set[str] = set()


class Lease:
    """A worker's sign of life, given by a thread of its own.

    Args:
        parent: the process that started this one and looks after it.

    Attributes:
        id: what its trials name it by.
    """

    def __init__(
        self, study: Study, seconds: float = LEASE, worker: str | None = None, parent: int | None = None
    ) -> None:
        self.study, self.seconds = study, seconds
        self.id = worker or uuid.uuid4().hex[:12]
        self._parent = {} if parent is None else {"parent": {"pid": parent, "began": _began(parent)}}
        self.beats = 0
        self.clock = Clock(seconds / 2)
        self._over = threading.Event()

    def __enter__(self) -> Lease:
        _ALIVE_HERE.add(self.id)
        self._say(storage_of(self.study))
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        _ALIVE_HERE.discard(self.id)

    def end(self, reason: str | None) -> None:
        """Say why the worker ends, if that can be said now."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._say(impatient(self.study), ended=reason or "done")

    def steady(self) -> float:
        """Since when nothing has kept this process from looking around, by its own clock."""
        return self.clock.steady

    def _beat(self) -> None:
        while not self._over.wait(self.seconds / 6):
            try:
                self._say(impatient(self.study))
                self.clock.tick()
            except Exception:  # a storage that is away now may be back for the next one
                continue

    def _say(self, storage: BaseStorage, **more: Any) -> None:
        self.beats += 1
        life = {"beats": self.beats, "host": platform.node(), **_process(), **self._parent, **more}
        storage.set_study_user_attr(study_id(self.study), _PREFIX + self.id, life)


class Clock:
    """Notes when its owner was kept from ticking: stopped, or waiting for a storage that was away. What it has not
    seen of others in that time says nothing of them.

    Args:
        longest: seconds between two ticks that are not remarkable.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._last = time.monotonic()
        self.steady = self._last

    def tick(self) -> None:
        """All is well."""
        now = time.monotonic()
        if now - self._last > self.longest:
            self.steady = now
        self._last = now


def impatient(study: Study) -> BaseStorage:
    """A study's storage, whose errors come at once."""
    storage = storage_of(study)
    return storage.inner if isinstance(storage, PatientStorage) else storage


class Watch:
    """Tells who is alive, as far as signs of life show it."""

    def __init__(self, study: Study, seconds: float = LEASE, steady: Callable[[], float] = lambda: 0.0) -> None:
        self.study, self.seconds, self.steady = study, seconds, steady
        self._seen: dict[str, tuple[int, float]] = {}
        self._gone: set[str] | None = None

    def lives(self) -> dict[str, dict[str, Any]]:
        """What each worker last said, by its id."""
        attrs = self.study.user_attrs
        return {key.removeprefix(_PREFIX): value for key, value in attrs.items() if key.startswith(_PREFIX)}

    def dead(self, workers: set[str]) -> set[str]:
        """Those of `workers` that are gone.

        A dead process of this machine is left to the one that looks after it, which knows how it died, as long as that
        runs and the lease is not over; others are left to the next look, but for the first.
        """
        lives = self.lives() if workers else {}
        gone = {worker for worker in workers if self._is_dead(worker, lives.get(worker))}
        known, self._gone = self._gone, gone
        return gone if known is None else gone & known

    def _is_dead(self, worker: str, life: Mapping[str, Any] | None) -> bool:
        if life is None or "ended" in life:
            return worker not in _ALIVE_HERE
        if life["machine"] == _MACHINE:
            if life["pid"] == os.getpid():
                return worker not in _ALIVE_HERE
            if not _runs(life["pid"], life["began"]) and not ((parent := life.get("parent")) and _runs(**parent)):
                return True
        return self._is_silent(worker, life)

    def silent(self, workers: set[str]) -> set[str]:
        """Those of `workers` that have joined and then said nothing for longer than a lease, whatever the reason."""
        lives = self.lives() if workers else {}
        return {w for w in workers if w in lives and "ended" not in lives[w] and self._is_silent(w, lives[w])}

    def _is_silent(self, worker: str, life: Mapping[str, Any]) -> bool:
        beats, since = self._seen.get(worker, (-1, 0.0))
        now = time.monotonic()
        if life["beats"] != beats:
            self._seen[worker] = (life["beats"], now)
            return False
        return now - max(since, self.steady()) > self.seconds


def _machine() -> str:
    """Equal for processes that can see one another by their process ids."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()} {uuid.getnode()}"


_MACHINE = _machine()


def _process() -> dict[str, Any]:
    return {"machine": _MACHINE, "pid": os.getpid(), "began": _began(os.getpid())}


def _began(pid: int) -> str | None:
    """When a process began; None if it does not run, "" where that cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _exists(pid)
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _runs(pid: int, began: str | None) -> bool:
    """Whether the process runs, and is the same one: ids are used again."""
    return (now := _began(pid)) is not None and now == began
