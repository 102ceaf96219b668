"""What looks after a worker's process from inside: its parent is there, and its evaluation ends in time.

It is a thread, so that it works while an evaluation runs, or hangs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from blockforge.interrupts import EvaluationInterrupts

OVERTIME = 75
"""Exit code of a worker whose evaluation did not end when its time was over."""
_EVERY, _GRACE = 0.5, 10.0
"""Seconds between looks, and for what was asked to end by itself."""


class Watchdog:
    """While it is entered, ends this process where it would go on for nobody.

    Args:
        parent: the process that started this one; None: nobody in particular.
    Attributes:
        overtime: called with the seconds before an evaluation that does not end takes the process with it.
    """

    def __init__(self, interrupts: EvaluationInterrupts, parent: int | None) -> None:
        self.interrupts, self.parent = interrupts, parent
        self.overtime: Callable[[], None] = lambda: None
        self._over = threading.Event()
        self._orphan_since: float | None = None

    def __enter__(self) -> Watchdog:
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look_for_parent()
            if self.interrupts.overdue() > _GRACE:
                self.overtime()
                os._exit(OVERTIME)

    def _look_for_parent(self) -> None:
        """A process whose parent is gone gets another one, on every system that has process ids."""
        if self.parent is None or os.getppid() == self.parent:
            return
        if self._orphan_since is None:
            self._orphan_since = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() - self._orphan_since > _GRACE:
            os._exit(128 + signal.SIGTERM)


def stacks() -> list[str]:
    """Where the main thread is."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return [line.rstrip() for line in traceback.format_stack(frame)] if frame is not None else []
