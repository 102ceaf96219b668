"""Training of so many steps, whatever the data: one epoch of that length, with a schedule of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from time import perf_counter

from blockforge.compiler import Architecture
from blockforge.search.objectives.network import open_cached
from blockforge.train import EpochRecord, Recipe, Reporter, fit, load_recipe
from blockforge.train.data import Batch, Split, Want
from blockforge.train.epoch_progress import EpochProgress

_WARM_UP = 0.2
"""Share of the steps in which the learning rate rises."""
FIXED = ("epochs", "warmup_epochs", "ema")
"""What such a training says in place of its recipe."""
_PILOT = 6
"""Steps that say how long one takes."""


def train_steps(
    arch: Architecture, data: str, recipe: Recipe | str, steps: int, seed: int, progress: Reporter | bool = False
) -> EpochRecord:
    """Train a fresh network and measure it on the images to choose by; the learning rate ends at its lowest.

    Raises: DataError, SpecError; DivergedError if the loss is no number any more.
    """
    opened = open_cached(data)
    batch = batch_size(data, recipe)
    one_epoch = dataclasses.replace(opened, train=_Steps(opened.train, steps, batch))
    changes = {"epochs": 1, "batch_size": batch, "warmup_epochs": _WARM_UP, "ema": "none"}
    result = fit(
        arch, one_epoch, recipe, seed=seed, recipe_overrides=changes,
        overrides={"num_classes": len(opened.classes)}, progress=progress,
    )  # fmt: skip
    return result.history[-1]


def batch_size(data: str, recipe: Recipe | str) -> int:
    """Images of a step."""
    return min(load_recipe(recipe).batch_size, len(open_cached(data).train))


def seconds_a_step(arch: Architecture, data: str, recipe: Recipe | str, seed: int = 0) -> float:
    """How long a step takes here, from a few of them."""
    watch = _Pilot()
    with contextlib.suppress(_EnoughError):
        train_steps(arch, data, recipe, _PILOT + 1, seed, watch)
    return watch.seconds_a_step()


class StepTimes(EpochProgress):
    """Knows how long the steps of a run take, its evaluation apart; the first one, which is slower, does not count.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        super().__init__()
        self.clock = clock or perf_counter
        self.times: list[tuple[int, float]] = []

    def step(self, done: int, loss: float, lr: float) -> None:
        self.times.append((done, self.clock()))

    def seconds_a_step(self) -> float:
        """The mean; with less than two steps next to nothing."""
        if not self.times:
            return 1e-6
        (first, began), (last, ended) = self.times[0], self.times[-1]
        return max(1e-6, (ended - began) / max(1, last - first))


class _EnoughError(Exception):
    """Ends a pilot run."""


class _Pilot(StepTimes):
    """Ends a run after a few steps."""

    def step(self, done: int, loss: float, lr: float) -> None:
        super().step(done, loss, lr)
        if done >= _PILOT:
            raise _EnoughError


class _Steps:
    """A split whose one epoch has a given number of steps: as many epochs of another split, or part of one."""

    def __init__(self, split: Split, steps: int, batch_size: int) -> None:
        self.split, self.steps, self.batch_size = split, steps, batch_size
        self.crops = split.crops

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]] | None:
        return self.split.statistics(channels)

    def digest(self) -> str:
        return self.split.digest()

    def batches(self, want: Want) -> Iterator[Batch]:
        left, epoch = self.steps, 0
        while left:
            for batch in self.split.batches(dataclasses.replace(want, epoch=epoch)):
                yield batch
                left -= 1
                if not left:
                    return
            epoch += 1
