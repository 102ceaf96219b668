"""Signals that stop a long run between two steps, or in the middle of an evaluation, and never in a write; and the time
that an evaluation may take."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Raised inside an evaluation that is to be stopped. No Exception: an objective must not swallow it."""


class Overtime(BaseException):
    """Raised inside an evaluation whose time is over."""


class Interrupts:
    """While it is entered, the first SIGINT or SIGTERM only sets `received`; the next one acts as usual.

    In another thread than the main one Python delivers no signals, and it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stopped(self) -> bool:
        """Whether a signal was received."""
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()


class EvaluationInterrupts(Interrupts):
    """While it is entered, every SIGINT or SIGTERM sets `received`; inside `evaluation` it raises `Stopped`."""

    def __init__(self) -> None:
        super().__init__()
        self._evaluating = False
        self._until: float | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        if self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def evaluation(self, seconds: float | None = None) -> _Evaluation:
        """A block of code that a signal may cut short, or the end of its time with `Overtime`."""
        return _Evaluation(self, seconds)

    def overdue(self) -> float:
        """By how many seconds the evaluation under way has passed its time."""
        return time.monotonic() - self._until if self._until is not None else 0.0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._evaluating:
            self._evaluating = False  # once: what cleans up behind it is not to be cut short as well
            raise Stopped

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._evaluating:
            self._evaluating = False
            raise Overtime


class _Evaluation:
    def __init__(self, interrupts: EvaluationInterrupts, seconds: float | None) -> None:
        self.interrupts, self.seconds = interrupts, seconds

    def __enter__(self) -> None:
        own = self.interrupts
        own._evaluating = True
        if own.received is not None:
            own._evaluating = False
            raise Stopped
        if self.seconds is not None:
            own._until = time.monotonic() + self.seconds
            if signal.SIGALRM in own._before:
                signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *error: object) -> None:
        own = self.interrupts
        own._evaluating, own._until = False, None
        if self.seconds is not None and signal.SIGALRM in own._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
