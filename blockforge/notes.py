"""What a user should know though nothing stopped: a line on standard error, through the logger `blockforge`."""

from __future__ import annotations

import logging
import sys


class _StandardError(logging.Handler):
    """Prints where standard error is when it prints, not where it was when this was imported."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


_LOGGER = logging.getLogger("blockforge")


def note(text: str) -> None:
    """Say a line about what is as it should be. `logging.getLogger("blockforge").setLevel(logging.ERROR)` is for
    silence."""
    _say("note", text)


def warn(text: str) -> None:
    """Say a line about what may be wrong."""
    _say("warning", text)


def _say(kind: str, text: str) -> None:
    if not _LOGGER.handlers:
        _LOGGER.addHandler(_StandardError())
        _LOGGER.propagate = False
    _LOGGER.warning("%s: %s", kind, text)
