"""Several processes of one swap on this machine: each fills its library and scores, with a GPU of its own where there
are any. They share the folder as any processes of one command do, see `shared`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockforge.errors import RunError
from blockforge.files import make_folder
from blockforge.notes import note
from blockforge.plugins import plugins
from blockforge.search.workers.devices import VISIBLE, dealt, visible_gpus
from blockforge.weights.files import Weights

LOGS = "workers"
"""The folder of what workers print, in that of the swap."""


def work_together(arguments: Mapping[str, Any], workers: int, folder: Path | None) -> None:
    """Start workers that fill a swap's folder, and wait for them. What one leaves undone, also for a mistake that
    whoever asks next finds as well, is left to them.

    Args:
        arguments: of `run.fill`.
        workers: how many; GPUs are dealt to them in turns.
        folder: of the swap.
    Raises: RunError if workers cannot open what is given.
    """
    if folder is None:
        raise RunError("workers share a folder\n  hint: --out DIR")
    make_folder(folder / LOGS)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    given = _as_text({**arguments, "out": folder})
    started = []
    try:
        for number, gpu in enumerate(dealt(workers, visible_gpus(), None)):
            env = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": path}
            with open(folder / LOGS / f"worker{number}.log", "ab") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "blockforge.swapping.worker", given],
                        env=env | ({VISIBLE: gpu} if gpu is not None else {}),
                        stdin=subprocess.DEVNULL, stdout=log, stderr=None if not number else subprocess.STDOUT,
                    )
                )  # fmt: skip
        ended = [process.wait() for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if early := [str(number) for number, code in enumerate(ended) if code]:
        note(f"workers that ended early: {', '.join(early)} ({folder / LOGS} says why); what is left is done here")


def _as_text(arguments: Mapping[str, Any]) -> str:
    """What a worker is told. Raises: RunError for what is no plain data."""

    def plain(value: Any) -> Any:
        if isinstance(value, Weights):
            return [os.fspath(value.file), value.key, value.prefix]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise RunError(
            f"workers open the network and the data themselves, and cannot open a {type(value).__name__}\n"
            "  hint: give a spec and a file of weights, and the name of the data"
        )

    return json.dumps({"plugins": plugins(), "arguments": dict(arguments)}, default=plain)
