"""What a training run and an evaluation give."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from blockforge.console.csv_text import lines_csv, to_csv
from blockforge.errors import BlockforgeError

if TYPE_CHECKING:
    from blockforge.compiler.lowering.backbone import Backbone


@dataclass(frozen=True)
class EpochRecord:
    """An epoch. Accuracies are percent of the evaluation images; the time includes their evaluation."""

    epoch: int
    steps: int
    train_loss: float
    val_loss: float
    top1: float
    top5: float
    lr: float
    seconds: float
    images_per_second: float


@dataclass
class TrainResult:
    """A run.

    Attributes:
        history: its epochs.
        seconds: time of all of them, also of those before an interruption.
        model: the trained network; with a moving average, the average.
        signal: what interrupted it, or None.
    """

    history: list[EpochRecord]
    seconds: float
    model: Backbone = field(repr=False)
    signal: int | None = None

    @property
    def accuracies(self) -> list[float]:
        """Top-1 of each epoch, in percent."""
        return [record.top1 for record in self.history]

    @property
    def best(self) -> float:
        """The highest of them; NaN before the first epoch ended."""
        return max(self.accuracies, default=float("nan"))

    @property
    def final(self) -> float:
        """The last of them; NaN before the first epoch ended."""
        return self.accuracies[-1] if self.history else float("nan")

    @property
    def weights(self) -> dict[str, Tensor]:
        """The state of `model`."""
        return self.model.state_dict()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without the weights."""
        figures = {"best": self.best, "final": self.final} if self.history else {"best": None, "final": None}
        return {**figures, "seconds": self.seconds, "history": [asdict(r) for r in self.history]}


def history_csv(history: list[EpochRecord]) -> str:
    """The epochs as CSV."""
    return to_csv([asdict(record) for record in history], [f.name for f in fields(EpochRecord)])


@dataclass(frozen=True)
class Evaluation:
    """Figures of a network on labelled images.

    Attributes:
        top1, top5: percent. With fewer than five classes top5 is 100.
        loss: mean cross-entropy.
        seconds: of the forward passes and of reading the images.
        confusion: counts, a row a true class, a column a predicted one, by the network's labels.
        classes: their names.
    """

    top1: float
    top5: float
    loss: float
    images: int
    seconds: float
    confusion: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without the confusion matrix."""
        names = ("top1", "top5", "loss", "images", "seconds", "images_per_second")
        return {name: getattr(self, name) for name in names}

    def confusion_csv(self, classes: tuple[str, ...] | None = None) -> str:
        """The confusion matrix as CSV, with the names of the classes, or others."""
        classes = classes if classes is not None else self.classes
        rows = zip(classes, self.confusion.tolist(), strict=True)
        return lines_csv([("true \\ predicted", *classes), *((name, *counts) for name, counts in rows)])


class DivergedError(BlockforgeError, ArithmeticError):
    """The loss became infinite or NaN.

    Args:
        result: the run up to its last whole epoch; its weights are the last good ones.
    """

    def __init__(self, message: str, result: TrainResult) -> None:
        super().__init__(message)
        self.result = result
