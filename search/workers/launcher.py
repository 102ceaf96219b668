"""What starts workers: processes on this machine; `ray_tasks` has those of a cluster. Both run `worker.work`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from blockforge.blocks import registry
from blockforge.search.study.config import WorkersConfig
from blockforge.search.workers.devices import VISIBLE, dealt, visible_gpus
from blockforge.search.workers.watchdog import OVERTIME

TAIL = 4000
"""Letters of what a worker printed that are kept."""


@dataclass
class WorkerSettings:
    """What all workers of a search are told.

    Attributes:
        storage: a URL, or the folder of the journal, as workers see it.
        logs: a folder for what workers print; None: one that goes away.
        plugins: files of blocks, which must be there where a worker is.
        code: of the user, by the names that the study has for it.
        folder: of the search's files, for weights and checkpoints where a worker can see it.
    """

    storage: str
    study: str
    workers: WorkersConfig
    logs: Path | None = None
    plugins: list[str] = field(default_factory=registry.plugins)
    folder: Path | None = None
    code: Sequence[str] = ()

    def arguments(self, stream: int, worker: str, parent: int | None = None) -> dict[str, Any]:
        """Of `worker.work`."""
        return {
            "storage": self.storage, "study": self.study, "stream": stream, "worker": worker,
            "max_idle": self.workers.max_idle, "lease": self.workers.lease, "plugins": self.plugins, "parent": parent,
            "folder": str(self.folder.resolve()) if self.folder is not None else None,
        }  # fmt: skip


class Handle(Protocol):
    """A worker under way.

    Attributes:
        mistake: what of the user's made it end, once it has.
    """

    worker: str
    mistake: str | None

    def ended(self) -> str | None:
        """None while it works; "" if it ended by itself, else how it died."""

    def waits_for(self) -> str | None:
        """What it asks for and has not got, if it has not begun; None: nothing, it will."""

    def trace(self) -> str:
        """The end of what it printed."""

    def stop(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """Make it end."""


Starter = Callable[[int, str], Handle]
"""Starts the worker of a slot, under a name."""


@contextlib.contextmanager
def starter(settings: WorkerSettings) -> Iterator[Starter]:
    """What starts workers on this machine, for as long as they are wanted."""
    gpus = dealt(settings.workers.number, visible_gpus(), settings.workers.gpus_per_worker)
    with contextlib.ExitStack() as stack:
        logs = settings.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs.mkdir(parents=True, exist_ok=True)

        def start(stream: int, worker: str) -> Handle:
            arguments = settings.arguments(stream, worker, os.getpid())
            return _Process(arguments, logs / f"worker{stream}.log", settings.workers.number, gpus[stream])

        yield start


class _Process:
    """A worker in a process of its own, which sees `gpus`; None: what this one sees."""

    def __init__(self, arguments: dict[str, Any], log: Path, workers: int, gpus: str | None) -> None:
        self.worker, self.log = arguments["worker"], log
        self.mistake: str | None = None
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        env = {
            "OMP_NUM_THREADS": threads,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
            **({VISIBLE: gpus} if gpus is not None else {}),
        }
        command = [sys.executable, "-m", "blockforge.search.workers.worker", json.dumps(arguments)]
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env
            )

    def ended(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        if code in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
            return ""
        if code == 1 and "error: " in (printed := self.trace()):
            self.mistake = printed.rpartition("error: ")[2].strip()
        if code == OVERTIME:
            return "its evaluation did not end when its time was over"
        if code < 0:
            number = -code
            known = signal.Signals(number).name if number in signal.valid_signals() else str(number)
            hint = ", as the kernel does where memory is short" if number == signal.SIGKILL else ""
            return f"its process was killed by {known}{hint}"
        return f"its process ended with exit code {code}"

    def waits_for(self) -> str | None:
        return None

    def trace(self) -> str:
        with open(self.log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode("utf-8", "replace")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
