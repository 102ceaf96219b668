"""A training of several processes on this machine, one a GPU: `blockforge train` under accelerate's launcher.

The processes end with the one that waits for them, also where that is killed. What they leave in the run's folder is
the result, and how far they are: the caller's reporter is told of epochs from there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from blockforge.compiler import Architecture
from blockforge.console.csv_text import from_csv
from blockforge.errors import RunError
from blockforge.extras import need
from blockforge.files import write_text
from blockforge.saving import load_model
from blockforge.spec import SpecLike, load, to_yaml
from blockforge.train.epoch_progress import EpochProgress, Reporter
from blockforge.train.logs import LOG
from blockforge.train.recipe import Recipe, load_recipe
from blockforge.train.result import EpochRecord, TrainResult

_EVERY, _GRACE = 0.5, 60.0
"""Seconds between looks; and until processes that were told to end are made to."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_LINES = 20


def fit_in_processes(
    model: SpecLike | Architecture,
    data: str,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] = "micro",
    *,
    processes: int,
    out: str | os.PathLike[str],
    epochs: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: Reporter | None = None,
) -> TrainResult:
    """`fit` by several processes, which share every batch; see there. A run that `out` holds goes on.

    Args:
        processes: how many; where there are GPUs, as many of them have to be visible.
        progress: told of epochs; what it raises ends the run, which is saved, and reaches the caller.
    Raises: RunError if there are too few GPUs, or a process fails; MissingExtraError.
    """
    need("train", "accelerate", "kornia")
    check_processes(processes)
    spec = load(model.source if isinstance(model, Architecture) else model, dict(overrides or {}))
    settled = load_recipe(recipe, {"epochs": epochs} if epochs is not None else None)
    reporter, folder = progress or EpochProgress(), Path(out)
    with tempfile.TemporaryDirectory(prefix="blockforge-") as scratch:
        files = Path(scratch) / "spec.yaml", Path(scratch) / "recipe.json"
        write_text(files[0], to_yaml(spec))
        write_text(files[1], settled.model_dump_json(exclude_none=True))
        arguments = ["train", str(files[0]), "--data", data, "--recipe", str(files[1]), "--seed", str(seed)]
        with (Path(scratch) / "told").open("w+") as told:
            command = [*launcher(processes), "blockforge.cli", *arguments, "--out", str(folder)]
            _run(command, told, lambda shown: _new_epochs(folder, shown), reporter)
    history = _history(folder)
    return TrainResult(history, sum(record.seconds for record in history), load_model(folder))


def check_processes(processes: int) -> None:
    """Raises: RunError where there are GPUs, and fewer than processes."""
    if processes < 1:
        raise RunError(f"{processes} processes train nothing\n  hint: processes=2")
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        hint = f"processes={gpus}, or --gpus-per-worker {processes}, which lets each worker see so many"
        raise RunError(f"{processes} processes need as many GPUs, and {gpus} can be seen\n  hint: {hint}")


def launcher(processes: int) -> list[str]:
    """The command that starts a module in so many processes, on a free port, whatever accelerate's settings say.

    Without GPUs it is the same: `--cpu` starts one process alone, and what trains sees by itself where it is.
    """
    own = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    more = ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", *own, *more, "--module"]


def _run(command: Sequence[str], told: Any, new_epochs: Callable[[int], list[EpochRecord]], reporter: Reporter) -> None:
    """Start the processes and wait for them; whatever ends the wait ends them, in order first."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=_end_with(os.getpid()),
    )  # fmt: skip
    shown = 0
    reporter.start(0, 0, [])
    try:
        while True:
            code = process.poll()
            for record in new_epochs(shown):
                shown = record.epoch
                reporter.epoch(record)
            if code is not None:
                break
            time.sleep(_EVERY)
    finally:
        _end(process)
        reporter.stop()
    if code:
        told.seek(0)
        raise RunError(_why(told.read(), code))


def _end_with(parent: int) -> Callable[[], None]:
    """What lets a process end when its parent does, where the system can."""

    def prepare() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _why(printed: str, code: int) -> str:
    """What the processes said: the first error of ours, else the end of it."""
    lines = printed.splitlines()
    own = next((line.partition("error: ")[2] for line in lines if "error: " in line and "raceback" not in line), None)
    return own or "\n".join([f"the processes ended with code {code}", *lines[-_LINES:]])


def _new_epochs(folder: Path, shown: int) -> list[EpochRecord]:
    return [record for record in _history(folder) if record.epoch > shown]


def _history(folder: Path) -> list[EpochRecord]:
    """The epochs of a run, as its table has them; the table is replaced as a whole."""
    if not (folder / LOG).exists():
        return []
    return from_csv((folder / LOG).read_text(encoding="utf-8"), EpochRecord)
