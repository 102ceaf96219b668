"""Images that a plugin reads: what goes wrong while they are read is told as its failure, not as a crash of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blockforge.errors import DataError
from blockforge.plugins import defined_in, is_ours, plugin_code
from blockforge.train.data import Batch, Split, Want


def guarded(split: Split, data: str) -> Split:
    """The same images; a plugin's class of them behind a `Guarded`. `data`: what they are called."""
    return split if is_ours(type(split).__module__) else Guarded(split, data)


class Guarded:
    """Does what a split of a plugin does. Raises, from every method: DataError with the line in the plugin."""

    def __init__(self, split: Split, data: str) -> None:
        self.split, self.module = split, type(split).__module__
        self.data = f"data source '{data}'"
        with self._code():
            self.crops = split.crops

    def __len__(self) -> int:
        with self._code():
            return len(self.split)

    def batches(self, want: Want) -> Iterator[Batch]:
        with self._code():
            for batch in self.split.batches(want):
                yield self._right(batch)

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]] | None:
        with self._code():
            return self.split.statistics(channels)

    def digest(self) -> str:
        with self._code():
            return self.split.digest()

    def _code(self) -> Any:
        return plugin_code(self.data, self.module, DataError)

    def _right(self, batch: Any) -> Batch:
        """A batch, if it is one. Raises: DataError."""
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            text = f"{self.data} ({defined_in(self.module)}) gives {type(batch).__name__} as a batch"
            raise DataError(f"{text}\n  hint: batches() gives pairs of images and labels")
        images, labels = batch
        return images, labels
