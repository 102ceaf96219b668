"""Training with any recipe on any data: the objective itself, where there is time for it."""

from __future__ import annotations

import math
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from blockforge.compiler import Architecture
from blockforge.search.objectives.network import open_cached
from blockforge.train import EpochRecord, Recipe, Reporter, TrainResult, fit
from blockforge.train.epoch_progress import EnoughError, EpochProgress
from blockforge.train.processes import check_processes, fit_in_processes

if TYPE_CHECKING:
    from blockforge.search.objectives.trial import ObjectiveTrial


@dataclass(frozen=True)
class Train:
    """Top-1 accuracy in percent, of the last epoch, on the evaluation images. The same run is the same value.

    Attributes:
        data: a source, as for `blockforge train`.
        recipe: a packaged name or a file; None: that of the search (`--recipe`) where it has holes, else micro.
        epochs: in place of the recipe's.
        seed: of the initialisation and of everything drawn in training.
        processes: that train together, one a GPU, under accelerate's launcher: with `--gpus-per-worker 2` two.
        out: a folder; each candidate's run is kept in `out/HASH-SEED`, and one that was cut off goes on there.
    """

    name: ClassVar[str] = "train"
    cost: ClassVar[float] = 600.0
    data: str
    recipe: str | None = None
    epochs: int | None = None
    seed: int = 0
    out: str | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        check_processes(self.processes)

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        length = f"{self.epochs} epochs of " if self.epochs is not None else ""
        return f"top-1 on {self.data} after {length}the recipe {self.recipe or 'micro'}"

    def __call__(self, arch: Architecture, trial: ObjectiveTrial | None = None) -> dict[str, float]:
        """The accuracy; the trial is told that of each epoch. Without `out` a run that was cut off goes on in the
        trial's folder, and leaves nothing there once it has ended.

        Raises: DataError, RunError, SpecError; DivergedError if the loss is no number any more.
        """
        own = trial.recipe if trial is not None else None
        name = f"{arch.hash}-{own.hash}" if own is not None else arch.hash
        folder = Path(self.out) / f"{name}-{self.seed}" if self.out is not None else None
        if folder is None and trial is not None and trial.kept:
            folder = trial.folder / "run"
        reporting = _Reporting(trial) if trial is not None else None
        try:
            result = self._fit(arch, folder, own, reporting)
        except EnoughError:
            assert trial is not None
            if trial.reached is None and self.out is None:
                trial.done()  # nobody goes on with it
            trial.check()
            return {self.name: trial.reached[1] if trial.reached is not None else math.nan}
        if result.signal is not None:
            signal.raise_signal(result.signal)  # the run is saved; who waits for its value is to be stopped as well
        if self.out is None and trial is not None:
            trial.done()
        return {self.name: result.final, "loss": result.history[-1].val_loss, "train_seconds": result.seconds}

    def _fit(
        self, arch: Architecture, folder: Path | None, recipe: Recipe | None, reporting: _Reporting | None
    ) -> TrainResult:
        return trained(
            arch,
            self.data,
            recipe or self.recipe or "micro",
            epochs=self.epochs,
            seed=self.seed,
            out=folder,
            processes=self.processes,
            progress=reporting,
        )


def trained(
    arch: Architecture,
    data: str,
    recipe: Recipe | str | Mapping[str, Any],
    *,
    epochs: int | None,
    seed: int,
    out: Path | None,
    processes: int = 1,
    progress: Reporter | None = None,
) -> TrainResult:
    """A training of a search: in this process, or in several that share every batch."""
    opened = open_cached(data)
    overrides = {"num_classes": len(opened.classes)}
    if processes == 1:
        return fit(
            arch, opened, recipe, epochs=epochs, seed=seed, out=out, overrides=overrides, progress=progress or False
        )
    with tempfile.TemporaryDirectory(prefix="blockforge-") as scratch:
        folder = out if out is not None else Path(scratch) / "run"
        return fit_in_processes(
            arch, data, recipe, processes=processes, out=folder, epochs=epochs, seed=seed, overrides=overrides,
            progress=progress,
        )  # fmt: skip


class _Reporting(EpochProgress):
    """Tells the accuracy of each epoch, and ends the run where that is enough, or not good enough."""

    def __init__(self, trial: ObjectiveTrial) -> None:
        super().__init__()
        self.trial = trial

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None:
        super().start(steps, done, history)
        if history and self.trial.until is not None and history[-1].epoch >= self.trial.until:
            self.epoch(history[-1])  # its process died between the checkpoint and the outcome

    def epoch(self, record: EpochRecord) -> None:
        self.trial.report(record.epoch, record.top1)
        if self.trial.should_stop():
            raise EnoughError


train = Train
