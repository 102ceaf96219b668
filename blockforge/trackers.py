"""Runs where people look at them: TensorBoard, MLflow and Weights & Biases, each through its own package.

A tracker takes what a run was told to do, values on its way, and how it ended. Nothing leaves this machine unless the
package's own variables say so: `MLFLOW_TRACKING_URI=http://...`, `WANDB_MODE=online`. A tracker that fails says so
once and is silent from then on: it ends no run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from blockforge.errors import BlockforgeError, did_you_mean, in_a_line
from blockforge.extras import need
from blockforge.files import make_folder, write_text
from blockforge.notes import warn

End = Literal["finished", "failed", "stopped"]
_MODULES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
TRACKERS = tuple(_MODULES)
_DATABASE = "mlflow.db"


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a run as it begins.

    Attributes:
        folder: where trackers put what they keep on this machine.
        project: what runs that belong together are called.
        name: of the run in there.
        settings: what it was told to do, flat.
        apart: it is one of many in the folder. Else it is the folder's only one, which goes on there.
        step: where it goes on.
    """

    folder: Path
    project: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = True
    step: int = 0


class Tracker(Protocol):
    """A run that is being told."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values at a step."""

    def end(self, values: Mapping[str, float], how: End) -> None:
        """The run has ended, with these values."""


def check_name(name: str) -> None:
    """Raise BlockforgeError for a name that is no tracker's."""
    if name not in _MODULES:
        hint = did_you_mean(name, TRACKERS, what="trackers")
        raise BlockforgeError(f"no tracker named '{name[:40]}'\n  hint: {hint}")


def check_trackers(names: Sequence[str], folder: Path | None) -> None:
    """Raise BlockforgeError for a name that is none, a package that is missing, or no folder to log into; then make
    what several processes would make at once."""
    for name in names:
        check_name(name)
        need(name, _MODULES[name])
    if names and folder is None:
        raise BlockforgeError(f"{names[0]} needs a folder to log into\n  hint: --out")
    if folder is not None and "mlflow" in names:
        make_folder(folder)
        _mlflow(folder)


class Trackers:
    """Several trackers of one run. None of them can end it."""

    def __init__(self, names: Sequence[str], run: Run) -> None:
        self._open: dict[str, Tracker] = {}
        for name in names:
            self._told(name, lambda name=name: self._open.__setitem__(name, _MAKERS[name](run)))  # type: ignore[misc]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values at a step."""
        for name, tracker in list(self._open.items()):
            self._told(name, lambda tracker=tracker: tracker.log(values, step))  # type: ignore[misc]

    def end(self, values: Mapping[str, float] | None = None, how: End = "finished") -> None:
        """The run has ended, with these values."""
        for name, tracker in list(self._open.items()):
            self._told(name, lambda tracker=tracker: tracker.end(values or {}, how))  # type: ignore[misc]
        self._open = {}

    def _told(self, name: str, tell: Callable[[], object]) -> None:
        try:
            tell()
        except Exception as e:
            self._open.pop(name, None)
            warn(f"{name} takes nothing more of this run: {in_a_line(e)}")


class TensorBoard:
    """Events in `tensorboard/NAME`; its page HPARAMS compares runs by their settings."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = run.folder / "tensorboard" / run.name if run.apart else run.folder / "tensorboard"
        make_folder(folder)
        self.writer = SummaryWriter(str(folder), purge_step=run.step or None)
        self.settings = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in run.settings.items()}
        self.apart, self.step = run.apart, run.step

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, values: Mapping[str, float], how: End) -> None:
        if self.apart:
            from torch.utils.tensorboard.summary import hparams

            # `add_hparams` opens a second file, which readers take before this one or after it, by its name.
            ended = {**values, "finished": float(how == "finished")}
            for part in hparams(self.settings, ended):
                self.writer.file_writer.add_summary(part)  # type: ignore[attr-defined]
            self.log(ended, self.step)
        self.writer.close()


class MLflow:
    """A run of the experiment PROJECT, in `mlflow.db` of the folder or where `MLFLOW_TRACKING_URI` says."""

    def __init__(self, run: Run) -> None:
        from mlflow.entities import Param

        self.client, self.step = _mlflow(run.folder), run.step
        if (known := _earlier(run, "mlflow")) is not None:
            self.id = known
            self.client.update_run(self.id, status="RUNNING")
            return
        existing = self.client.get_experiment_by_name(run.project)
        experiment = existing.experiment_id if existing is not None else self.client.create_experiment(run.project)
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in run.settings.items()]
        self.client.log_batch(self.id, params=params)
        _keep(run, "mlflow", self.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        self.step, now = step, int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[Metric(name, v, now, step) for name, v in values.items()])

    def end(self, values: Mapping[str, float], how: End) -> None:
        if values:
            self.log(values, self.step)  # of a metric's values, the one of the last step stands in its tables
        status = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[how]
        self.client.set_terminated(self.id, status)


def _mlflow(folder: Path) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    at = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / _DATABASE}"
    return MlflowClient(tracking_uri=at)


class WandB:
    """A run of PROJECT in `wandb/` of the folder, for `wandb sync`; with `WANDB_MODE=online` at once."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        make_folder(run.folder)
        known = _earlier(run, "wandb")
        self.run = wandb.init(
            project=run.project, name=run.name, dir=str(run.folder), config=dict(run.settings),
            mode=os.environ.get("WANDB_MODE", "offline"), reinit="create_new",  # type: ignore[arg-type]
            id=known, resume="allow" if known else None,
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        _keep(run, "wandb", self.run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self, values: Mapping[str, float], how: End) -> None:
        self.run.summary.update(dict(values))
        self.run.finish(exit_code=0 if how == "finished" else 1)


def _earlier(run: Run, tracker: str) -> str | None:
    """The run of a tracker that goes on here."""
    file = run.folder / f"{tracker}.id"
    return file.read_text(encoding="utf-8").strip() if not run.apart and file.exists() else None


def _keep(run: Run, tracker: str, id: str) -> None:
    if not run.apart:
        write_text(run.folder / f"{tracker}.id", id)


_MAKERS: dict[str, Callable[[Run], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
