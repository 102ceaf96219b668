"""A run as a picture: losses and accuracies by epoch."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blockforge.figures import new_figure
from blockforge.train.result import EpochRecord

_BLUE, _ORANGE, _GREEN = "#4c78a8", "#e4572e", "#4f9d69"


def plot(history: list[EpochRecord], title: str) -> Figure:
    """Losses beside accuracies."""
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    left.plot(epochs, [r.train_loss for r in history], color=_BLUE, label="training", marker=".")
    left.plot(epochs, [r.val_loss for r in history], color=_ORANGE, label="validation", marker=".")
    right.plot(epochs, [r.top1 for r in history], color=_ORANGE, label="top-1", marker=".")
    right.plot(epochs, [r.top5 for r in history], color=_GREEN, label="top-5", marker=".")
    best = max(history, key=lambda r: r.top1)
    left.set_title(title, loc="left", fontsize=10)
    right.set_title(f"best top-1 {best.top1:.2f} in epoch {best.epoch}", loc="left", fontsize=10)
    _finish(left, "loss")
    _finish(right, "accuracy on validation images (%)")
    return figure


def _finish(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5)
