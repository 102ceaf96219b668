"""Seconds, or steps, of real training on small real data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar

from blockforge.compiler import Architecture
from blockforge.errors import SearchError
from blockforge.search.objectives.network import open_cached, shrunk
from blockforge.train import EpochRecord, fit, load_recipe
from blockforge.train.data import Batch, Split, Want

_WARM_UP = 0.2
"""Share of the steps in which the learning rate rises."""
_PILOT = 6
"""Steps that say how long one takes; the first is slower and does not count."""


@dataclass(frozen=True)
class Micro:
    """Top-1 accuracy in percent after a little training, on evaluation images; the learning rate ends at its lowest.

    By `steps` every candidate sees the same images, and equal seeds give equal values on one machine with as many
    threads. By `seconds` a candidate makes as many steps as it has time for, measured on a few steps before: slow
    networks see less, and values differ a little from run to run. Both give `steps` and `loss` as figures beside.

    Attributes:
        seconds: of training, evaluation apart.
        steps: of the optimiser, in place of seconds.
        data: a source, as for `blockforge train`. Networks of other input channels get grey repeated, or colour
            weighed to grey.
        size: longer side of the images; None: the spec's. See `shrunk`.
        recipe: whose batch size, optimiser and learning rate hold.
        seed: of the initialisation and of everything drawn in training.
    """

    name: ClassVar[str] = "micro"
    cost: ClassVar[float] = 20.0
    seconds: float = 10.0
    steps: int | None = None
    data: str = "mnist5k"
    size: int | None = None
    recipe: str = "micro"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or (self.steps is not None and self.steps < 1):
            raise SearchError("micro trains for no time\n  hint: micro:seconds=10 or micro:steps=200")

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        length = f"{self.steps} steps" if self.steps is not None else f"{self.seconds:g} s"
        return f"top-1 on {self.data} after {length} of training"

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Raises: DataError, SpecError; DivergedError if the loss is no number any more."""
        arch = shrunk(arch, self.size) if self.size is not None else arch
        steps = self.steps if self.steps is not None else self._affordable(arch)
        last = self._train(arch, steps)
        return {self.name: last.top1, "loss": last.val_loss, "steps": float(steps)}

    def _train(self, arch: Architecture, steps: int, watch: _Pilot | None = None) -> EpochRecord:
        data = open_cached(self.data)
        batch = min(load_recipe(self.recipe).batch_size, len(data.train))
        one_epoch = dataclasses.replace(data, train=_Steps(data.train, steps, batch))
        changes = {"epochs": 1, "batch_size": batch, "warmup_epochs": _WARM_UP, "ema": "none"}
        result = fit(
            arch, one_epoch, self.recipe, seed=self.seed, recipe_overrides=changes,
            overrides={"num_classes": len(data.classes)}, progress=watch or False,
        )  # fmt: skip
        return result.history[-1]

    def _affordable(self, arch: Architecture) -> int:
        """Steps that take the seconds."""
        watch = _Pilot()
        with contextlib.suppress(_EnoughError):
            self._train(arch, _PILOT + 1, watch)
        return max(1, int(self.seconds / watch.seconds_a_step()))


class _EnoughError(Exception):
    """Ends a pilot run."""


class _Pilot:
    """Ends a run after a few steps, and knows how long they took."""

    def __init__(self) -> None:
        self.times: list[tuple[int, float]] = []

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None: ...

    def step(self, done: int, loss: float, lr: float) -> None:
        self.times.append((done, perf_counter()))
        if done >= _PILOT:
            raise _EnoughError

    def epoch(self, record: EpochRecord) -> None: ...

    def stop(self) -> None: ...

    def seconds_a_step(self) -> float:
        (first, began), (last, ended) = self.times[0], self.times[-1]
        return max(1e-6, (ended - began) / max(1, last - first))


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


micro = Micro
