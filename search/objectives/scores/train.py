"""Training with any recipe on any data: the objective itself, where there is time for it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from blockforge.compiler import Architecture
from blockforge.search.objectives.network import open_cached
from blockforge.train import EpochRecord, fit
from blockforge.train.epoch_progress import EpochProgress

if TYPE_CHECKING:
    from blockforge.search.objectives.trial import ObjectiveTrial


@dataclass(frozen=True)
class Train:
    """Top-1 accuracy in percent, of the last epoch, on the evaluation images. The same run is the same value.

    Attributes:
        data: a source, as for `blockforge train`.
        recipe: a packaged name or a file.
        epochs: in place of the recipe's.
        seed: of the initialisation and of everything drawn in training.
        out: a folder; each candidate's run is kept in `out/HASH-SEED`, and one that was cut off goes on there.
    """

    name: ClassVar[str] = "train"
    cost: ClassVar[float] = 600.0
    data: str
    recipe: str = "micro"
    epochs: int | None = None
    seed: int = 0
    out: str | None = None

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        length = f"{self.epochs} epochs of " if self.epochs is not None else ""
        return f"top-1 on {self.data} after {length}the recipe {self.recipe}"

    def __call__(self, arch: Architecture, trial: ObjectiveTrial | None = None) -> dict[str, float]:
        """The accuracy; the trial is told that of each epoch. Without `out` a run that was cut off goes on in the
        trial's folder, and leaves nothing there once it has ended.

        Raises: DataError, RunError, SpecError; DivergedError if the loss is no number any more.
        """
        folder = Path(self.out) / f"{arch.hash}-{self.seed}" if self.out is not None else None
        if folder is None and trial is not None and trial.kept:
            folder = trial.folder / "run"
        result = fit(
            arch, open_cached(self.data), self.recipe, epochs=self.epochs, seed=self.seed, out=folder,
            overrides={"num_classes": len(open_cached(self.data).classes)},
            progress=_Reporting(trial) if trial is not None else False,
        )  # fmt: skip
        if result.signal is not None:
            signal.raise_signal(result.signal)  # the run is saved; who waits for its value is to be stopped as well
        if self.out is None and trial is not None:
            trial.done()
        return {self.name: result.final, "loss": result.history[-1].val_loss, "train_seconds": result.seconds}


class _Reporting(EpochProgress):
    """Tells the accuracy of each epoch, and ends the run where that is not enough."""

    def __init__(self, trial: ObjectiveTrial) -> None:
        super().__init__()
        self.trial = trial

    def epoch(self, record: EpochRecord) -> None:
        self.trial.report(record.epoch, record.top1)
        if self.trial.should_stop():
            self.trial.check()


train = Train
