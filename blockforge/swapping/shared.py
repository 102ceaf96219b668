"""Several processes of one command in one folder: who does which part of the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from blockforge.errors import OutputError
from blockforge.files import make_folder, telling
from blockforge.locks import KernelLock

T = TypeVar("T")
LOCKS = "locks"
"""The folder of the locks, in that of the swap."""


@contextmanager
def alone(folder: Path | None, name: str) -> Iterator[None]:
    """One process after the other does what stands in the block. Arguments are those of `in_turns`."""
    if folder is None:
        yield
        return
    make_folder(folder / LOCKS)
    with _held(folder, name, wait=True):
        yield


def in_turns(parts: Sequence[T], folder: Path | None, name: str) -> Iterator[T]:
    """The parts of some work, each while no other process has it: first those that nobody is at; then the others, as
    they are given back, mostly done. A process that dies gives back what it had, for the kernel keeps the locks.

    Args:
        folder: what the processes share; None: there is one process.
        name: of the work.
    Raises: OutputError.
    """
    if folder is None:
        yield from parts
        return
    make_folder(folder / LOCKS)
    taken: list[int] = []
    for wait, numbers in ((False, [*range(len(parts))]), (True, taken)):
        for number in numbers:
            with _held(folder, f"{name}-{number}", wait) as is_ours:
                if is_ours:
                    yield parts[number]
                else:
                    taken.append(number)


@contextmanager
def _held(folder: Path, name: str, wait: bool) -> Iterator[bool]:
    """A lock of a folder while the context lasts, and whether this process has it."""
    lock = KernelLock(folder / LOCKS / name)
    with telling(folder, OutputError.to):
        is_ours = lock.acquire(wait=wait)
    try:
        yield is_ours
    finally:
        if is_ours:
            lock.release()
