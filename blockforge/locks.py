"""A folder for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

_LOCKS: weakref.WeakSet[KernelLock] = weakref.WeakSet()


class KernelLock:
    """A lock on a file that the kernel releases when its process dies, however it dies.

    Locks that are files by their being there (Optuna's own) outlive a killed process; the next one then waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        _LOCKS.add(self)

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False if another process has it. Raises: OSError."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as e:
            os.close(handle)
            if isinstance(e, BlockingIOError):
                return False
            raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back."""
        self.forget()

    def forget(self) -> None:
        """Close the handle and leave the lock to whoever else has it: what a forked process does."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The lock, for a block of code."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


def _forget_all() -> None:
    for lock in _LOCKS:
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)  # a data loader's process must not hold what its dead parent held
