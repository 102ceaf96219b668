"""Ctrl-C that stops a search between two steps, or in the middle of an evaluation, and never in a write."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Raised inside an evaluation that is to be stopped. No Exception: an objective must not swallow it."""


class Interrupts:
    """While it is entered, SIGINT and SIGTERM only set `received`; inside `evaluation` they raise `Stopped`.

    In another thread than the main one Python delivers no signals, and it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._evaluating = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def evaluation(self) -> _Evaluation:
        """A block of code that a signal may cut short."""
        return _Evaluation(self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._evaluating:
            self._evaluating = False  # once: what cleans up behind it is not to be cut short as well
            raise Stopped


class _Evaluation:
    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def __enter__(self) -> None:
        self.interrupts._evaluating = True
        if self.interrupts.received is not None:
            self.interrupts._evaluating = False
            raise Stopped

    def __exit__(self, *error: object) -> None:
        self.interrupts._evaluating = False
