"""What a run leaves in its folder beside its weights: settings, a table, curves, events for TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import OutputError, RunError
from blockforge.figures import write_figure
from blockforge.files import make_folder, telling, write_text
from blockforge.locks import KernelLock
from blockforge.saving import save_weights
from blockforge.trackers import End, Run, Trackers
from blockforge.train.epoch_progress import EnoughError
from blockforge.train.result import EpochRecord, history_csv

RUN, LOG, CURVES, BEST = "run.json", "log.csv", "curves.png", "best.safetensors"
LOCK = "run.lock"


class Folder:
    """The folder of a run, which one process at a time works in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trackers = Trackers((), Run(path, "", ""))
        self._end: End = "finished"

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
        except BaseException as e:
            self._end = "stopped" if isinstance(e, EnoughError) else "failed"
            raise
        finally:
            self._trackers.end(how=self._end)
            lock.release()

    def stopped(self) -> None:
        """The run ends before its last step, to go on later."""
        self._end = "stopped"

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

    def begin(
        self, settings: dict[str, Any], preprocess: dict[str, Any], step: int, name: str = "", log: Sequence[str] = ()
    ) -> None:
        """Say in it what is run, and to trackers.

        Args:
            step: where the run goes on; later events are dropped.
            name: of the network.
            log: trackers beside TensorBoard, which is told where it is installed.
        """
        write_text(self.path / RUN, json.dumps({"settings": settings, "preprocess": preprocess}, indent=1))
        names = [*(["tensorboard"] if find_spec("tensorboard") is not None else []), *log]
        told = {"network": settings["network"], "seed": settings["seed"], "data": settings["data"].get("name", "")}
        run = Run(self.path, "blockforge", name, {**told, **settings["recipe"]}, apart=False, step=step)
        self._trackers = Trackers(list(dict.fromkeys(names)), run)

    def loss(self, step: int, loss: float, lr: float) -> None:
        """The loss of a step."""
        self._trackers.log({"train/loss": loss, "train/lr": lr}, step)

    def epoch(self, history: list[EpochRecord], step: int) -> None:
        """An epoch ended."""
        write_text(self.path / LOG, history_csv(history))
        names = ("val_loss", "top1", "top5", "images_per_second")
        self._trackers.log({f"val/{name.removeprefix('val_')}": getattr(history[-1], name) for name in names}, step)

    def best(self, model: Backbone) -> None:
        """Keep the weights of the best epoch so far."""
        save_weights(model, self.path / BEST)

    def curves(self, history: list[EpochRecord], title: str) -> None:
        """Draw the epochs."""
        from blockforge.train.plot import plot

        write_figure(self.path / CURVES, plot(history, title))
