"""The journal: one JSON line for each change of a study, in a file that no crash leaves unreadable.

DIR/study.journal        the lines
DIR/study.journal.lock   held while a line is written
DIR/study.lock           held by the search that works on the folder
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from blockforge.locks import KernelLock
from blockforge.search.errors import SearchError

JOURNAL = "study.journal"


class Journal(JournalFileBackend):
    """Optuna's journal file with a lock that no dead process holds, and one fsync a trial, not one a line.

    Lines reach the kernel at once, so that a killed process loses none. A power failure may lose what came
    after the last `sync`. Half a line, which a power failure or a full disk leaves, is cut before anything is
    written behind it: Optuna 5.0 would append to it and never open the study again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.kernel_lock = path, KernelLock(path.with_name(path.name + ".lock"))
        if path.exists():
            with self.kernel_lock.held():
                cut_torn_line(path)
        super().__init__(str(path), lock_obj=self.kernel_lock)  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.kernel_lock.held(), open(self.path, "r+b", buffering=0) as file:
            if (end := file.seek(0, os.SEEK_END)) and _last_byte(file, end) != b"\n":
                cut_torn_line(self.path)
                end = file.seek(0, os.SEEK_END)
            try:
                if file.write(text.encode("utf-8")) < len(text.encode("utf-8")):
                    raise OSError(28, "No space left on device")
            except OSError:
                file.truncate(end)
                raise

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


def _last_byte(file: Any, end: int) -> bytes:
    file.seek(end - 1)
    return file.read(1)


def cut_torn_line(path: Path) -> int:
    """Cut a journal back to its last newline; how many bytes that took. Hold its lock."""
    with open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        return size - end


@contextlib.contextmanager
def working_in(folder: Path | None) -> Iterator[None]:
    """Hold `folder` for one search.

    Raises: SearchError if another process works in it, or it cannot be written.
    """
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = KernelLock(folder / "study.lock")
        free = lock.acquire(wait=False)
    except OSError as e:
        raise SearchError(f"cannot write in {folder}: {e.strerror}") from None
    if not free:
        raise SearchError(
            f"another search is running in {folder}\n  hint: wait for it, or give another --out; "
            f"to help it: blockforge worker --storage {folder}"
        )
    try:
        yield
    finally:
        lock.release()
