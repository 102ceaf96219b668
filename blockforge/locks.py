"""A folder for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class KernelLock:
    """A lock on a file that the kernel releases when its process dies, however it dies.

    Locks that are files by their being there (Optuna's own) outlive a killed process; the next one then waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

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
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a forked process may hold the same handle
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
