"""What can be wrong with a run that is the user's to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockforge.errors import BlockforgeError

if TYPE_CHECKING:
    from blockforge.train.result import TrainResult


class DataError(BlockforgeError, ValueError):
    """Images or labels that are missing, cannot be read, or do not fit."""


class RunError(BlockforgeError, ValueError):
    """A folder that holds another run, or a setting that cannot work."""


class DivergedError(BlockforgeError, ArithmeticError):
    """The loss became infinite or NaN.

    Args:
        result: the run up to its last whole epoch; its weights are the last good ones.
    """

    def __init__(self, message: str, result: TrainResult) -> None:
        super().__init__(message)
        self.result = result
