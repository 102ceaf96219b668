"""What a run leaves in its folder beside its weights: settings, a table, curves, events for TensorBoard."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blockforge.compiler.backbone import Backbone
from blockforge.files import write_atomically, write_text
from blockforge.saving import save_weights
from blockforge.train.result import EpochRecord, history_csv

RUN, LOG, CURVES, BEST, EVENTS = "run.json", "log.csv", "curves.png", "best.safetensors", "tensorboard"


class Folder:
    """The folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: Any = None

    def begin(self, settings: dict[str, Any], preprocess: dict[str, Any], step: int) -> None:
        """Make it, and say in it what is run. `step`: where the run goes on; later events are dropped."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / RUN, json.dumps({"settings": settings, "preprocess": preprocess}, indent=1))
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(self.path / EVENTS), purge_step=step or None)

    def loss(self, step: int, loss: float, lr: float) -> None:
        """The loss of a step."""
        if self._events is not None:
            self._events.add_scalar("train/loss", loss, step)
            self._events.add_scalar("train/lr", lr, step)

    def epoch(self, history: list[EpochRecord], step: int) -> None:
        """An epoch ended."""
        write_text(self.path / LOG, history_csv(history))
        if self._events is not None:
            record = history[-1]
            for name in ("val_loss", "top1", "top5", "images_per_second"):
                self._events.add_scalar(f"val/{name.removeprefix('val_')}", getattr(record, name), step)
            self._events.flush()

    def best(self, model: Backbone) -> None:
        """Keep the weights of the best epoch so far."""
        save_weights(model, self.path / BEST)

    def curves(self, history: list[EpochRecord], title: str) -> None:
        """Draw the epochs."""
        from blockforge.train.plot import plot

        write_atomically(self.path / CURVES, lambda file: plot(history, title, file))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
