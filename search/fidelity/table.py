"""A table of real trainings in one file that only grows: a JSON object a line.

The first line says what the trainings have in common. The others are the networks, the sessions that trained (their
versions), and the trainings. A line is on the disk before the next training begins. Several processes may write: each
training is claimed by a lock that dies with its process.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import SearchError
from blockforge.files import append_text, cut_torn_line, telling
from blockforge.locks import KernelLock
from blockforge.search.space.load import candidate
from blockforge.spec import Spec, load
from blockforge.spec.slots import Model


class Setting(Model):
    """What all trainings of a table have in common."""

    version: int = 1
    """Of this form."""
    space: dict[str, Any]
    """The space, written out."""
    budget: str
    """What a network costs at most."""
    fit: float
    """And the least share of it."""
    data: str
    data_digest: str
    """Of its images to train on and to choose by."""
    recipe: str
    draw_seed: int = 0
    """Of the networks."""


class Session(Model):
    """A process that trained."""

    session: int
    blockforge: str
    torch: str
    cpu: str
    threads: int


class Network(Model):
    """A point of the space, with its widths fitted."""

    network: int
    """Its number; each is drawn by itself, so more may be asked for later."""
    hash: str
    answers: dict[str, Any]
    """The values of the space's holes, by name."""
    widths: dict[str, Any]
    """What fitting changed, by path."""
    macs: int
    params: int
    depth: int


class Training(Model):
    """One training. Accuracy and loss are those on the images to choose by, at its end."""

    network: int
    steps: int
    repeat: int
    """0, 1, ...: which of the trainings of this network and length."""
    seed: int
    """Of everything drawn in it; no two lengths share one, so that what they agree on is not the initial weights."""
    top1: float | None = None
    """Percent; none: it failed."""
    loss: float | None = None
    """None: it diverged."""
    train_loss: float | None = None
    """Mean over the steps."""
    seconds: float
    """Evaluation included: time of the processor, so that other work there does not count; on a GPU by the clock."""
    step_ms: float = 0.0
    """Mean time of a step, likewise."""
    session: int
    failed: str | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        return self.network, self.steps, self.repeat


Line = Setting | Session | Network | Training


class Table:
    """What a file holds.

    Attributes:
        trainings: by network, steps and repeat.
    """

    def __init__(self, setting: Setting, lines: list[Line]) -> None:
        self.setting = setting
        self.sessions = [line for line in lines if isinstance(line, Session)]
        self.networks = {line.network: line for line in lines if isinstance(line, Network)}
        self.trainings = {line.key: line for line in lines if isinstance(line, Training)}

    @cached_property
    def space(self) -> Spec:
        """The space that the networks are points of."""
        return load(self.setting.space)

    def architecture(self, network: int) -> Architecture:
        """A network, compiled. Raises: KeyError; SearchError if this version makes another network of its line."""
        line = self.networks[network]
        spec = candidate(self.space, line.answers, f"{self.space.name}_{network:04d}", {"space": self.space.name})
        arch = compile_spec(spec, line.widths or None)
        if arch.hash != line.hash:
            text = f"network {network} of the table has the hash {line.hash}; this version makes {arch.hash} of it"
            raise SearchError(f"{text}\n  hint: use the version that drew it: its hashes are of another graph")
        return arch


def parse(text: str, name: str) -> Table:
    """A table from its text; a last line that is not whole does not count. Raises: SearchError."""
    lines: list[Line] = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            lines.append(_parsed(json.loads(line)))
        except (ValueError, TypeError) as e:
            why = e.errors()[0]["msg"] if isinstance(e, ValidationError) else e
            raise SearchError(f"{name}, line {number}, is none of a table of trainings: {why}"
                              "\n  hint: write to another file") from None  # fmt: skip
    if not lines or not isinstance(lines[0], Setting):
        raise SearchError(f"{name} does not begin as a table of trainings\n  hint: write to another file")
    return Table(lines[0], lines[1:])


def _parsed(tree: Any) -> Line:
    if not isinstance(tree, dict):
        raise ValueError("it is no mapping")
    kind = Setting if "space" in tree else Training if "steps" in tree else Network if "hash" in tree else Session
    return kind.model_validate(tree)


class Store:
    """The file of a table."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = KernelLock(file.with_name(f".{file.name}.lock"))

    def read(self) -> Table | None:
        """What it holds; None: there is no file, or nothing whole in it. Raises: SearchError."""
        try:
            text = self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as e:
            raise SearchError(f"cannot read {self.file}: {getattr(e, 'strerror', None) or e}") from None
        return parse(text, str(self.file)) if "\n" in text else None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes meanwhile. Raises: OutputError."""
        with telling(self.file):
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def append(self, line: Line) -> None:
        """Add a line, on the disk before this returns. Call it `alone`. Raises: OutputError."""
        cut_torn_line(self.file)
        append_text(self.file, json.dumps(line.model_dump(exclude_none=True), separators=(",", ":")) + "\n")

    @contextlib.contextmanager
    def claim(self, key: tuple[int, int, int]) -> Iterator[bool]:
        """Whether this training is ours to make: nobody else makes it now, and nobody has. Raises: OutputError."""
        path = self.file.with_name(f".{self.file.name}.{'-'.join(map(str, key))}.lock")
        lock = KernelLock(path)
        with telling(path):
            ours = lock.acquire(wait=False)
        try:
            known = self.read() if ours else None
            yield ours and (known is None or key not in known.trainings)
        finally:
            if ours:
                path.unlink(missing_ok=True)
                lock.release()
