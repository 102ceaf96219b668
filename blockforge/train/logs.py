"""What a run leaves in its folder beside its weights: settings, a table, curves, events for TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import OutputError, RunError
from blockforge.figures import write_figure
from blockforge.files import make_folder, telling, write_text
from blockforge.locks import KernelLock
from blockforge.saving import save_weights
from blockforge.train.result import EpochRecord, history_csv

RUN, LOG, CURVES, BEST, EVENTS = "run.json", "log.csv", "curves.png", "best.safetensors", "tensorboard"
LOCK = "run.lock"


class Folder:
    """The folder of a run, which one process at a time works in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: Any = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and hold it for one run; then close what is open in it.

        Raises: RunError if another run works in it; OutputError.
        """
        make_folder(self.path)
        lock = KernelLock(self.path / LOCK)
        with telling(self.path, OutputError.to):
            free = lock.acquire(wait=False)
        if not free:
            hint = "wait for it, or give another --out"
            raise RunError(f"another run works in {self.path}\n  hint: {hint}")
        try:
            yield
        except BaseException:
            with contextlib.suppress(OutputError):  # what ended the run matters more
                self._close()
            raise
        else:
            self._close()
        finally:
            lock.release()

    def settings(self) -> dict[str, Any] | None:
        """What the run in it was begun with; None: there is none.

        Raises: RunError if that cannot be read.
        """
        file = self.path / RUN
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
            return {**settings, "recipe": dict(settings["recipe"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise RunError(f"{file} cannot be read: {e}\n  hint: give another --out") from None

    def begin(self, settings: dict[str, Any], preprocess: dict[str, Any], step: int) -> None:
        """Say in it what is run. `step`: where the run goes on; later events are dropped."""
        write_text(self.path / RUN, json.dumps({"settings": settings, "preprocess": preprocess}, indent=1))
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            with telling(self.path / EVENTS):
                self._events = SummaryWriter(str(self.path / EVENTS), purge_step=step or None)

    def loss(self, step: int, loss: float, lr: float) -> None:
        """The loss of a step."""
        self._add({"train/loss": loss, "train/lr": lr}, step)

    def epoch(self, history: list[EpochRecord], step: int) -> None:
        """An epoch ended."""
        write_text(self.path / LOG, history_csv(history))
        names = ("val_loss", "top1", "top5", "images_per_second")
        self._add({f"val/{name.removeprefix('val_')}": getattr(history[-1], name) for name in names}, step, flush=True)

    def best(self, model: Backbone) -> None:
        """Keep the weights of the best epoch so far."""
        save_weights(model, self.path / BEST)

    def curves(self, history: list[EpochRecord], title: str) -> None:
        """Draw the epochs."""
        from blockforge.train.plot import plot

        write_figure(self.path / CURVES, plot(history, title))

    def _add(self, values: dict[str, float], step: int, flush: bool = False) -> None:
        if self._events is not None:
            with telling(self.path / EVENTS):
                for name, value in values.items():
                    self._events.add_scalar(name, value, step)
                if flush:
                    self._events.flush()

    def _close(self) -> None:
        if self._events is not None:
            with telling(self.path / EVENTS):
                self._events.close()
