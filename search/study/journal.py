"""The journal: one JSON line for each change of a study, in a file that no crash leaves unreadable.

DIR/study.journal        the lines
DIR/study.journal.lock   held while a line is written
DIR/study.lock           held by the search that works on the folder
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from blockforge.errors import SearchError
from blockforge.locks import KernelLock

JOURNAL = "study.journal"


class Journal(JournalFileBackend):
    """Optuna's journal file with a lock that no dead process holds, and one fsync a trial, not one a line.

    Lines reach the kernel at once, so that a killed process loses none. A power failure may lose what came after the
    last `sync`. Each line says where it was written and has a checksum; Optuna reads over both. Damage at the end, as a
    power failure or a full disk leaves it, is put aside before anything is written behind it; damage in the middle is
    an error that names the line.

    Args:
        reading: change nothing, the end included.
    """

    def __init__(self, path: Path, reading: bool = False) -> None:
        self.path, self.kernel_lock = path, KernelLock(path.with_name(path.name + ".lock"))
        if path.exists() and not reading:
            with self.kernel_lock.held():
                mend_end(path)
        self._begins = {0: 0}
        super().__init__(str(path), lock_obj=self.kernel_lock)  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.kernel_lock.held(), open(self.path, "r+b", buffering=0) as file:
            if (end := file.seek(0, os.SEEK_END)) and _last_byte(file, end) != b"\n":
                mend_end(self.path)
                end = file.seek(0, os.SEEK_END)
            text = b""
            for log in logs:
                text += labelled(log, end + len(text))
            try:
                if file.write(text) < len(text):
                    raise OSError(28, "No space left on device")
            except OSError:
                file.truncate(end)
                raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        number = log_number_from if log_number_from in self._begins else 0
        with open(self.path, "rb") as file:
            file.seek(self._begins[number])
            damaged: DamageError | None = None
            for line in iter(file.readline, b""):
                if not line.endswith(b"\n"):
                    return  # it is being written, or was never finished
                at = self._begins[number]
                if damaged is not None:
                    if _follows(line, at):
                        raise damaged  # it is not the end of the file
                    continue
                try:
                    log = read_line(line, at)
                except ValueError as e:
                    damaged = DamageError(self.path, number + 1, str(e))
                    continue
                number += 1
                self._begins[number] = at + len(line)
                if number > log_number_from:
                    yield log
            if damaged is not None and number == 0:
                raise ValueError("it is no journal")

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


class DamageError(SearchError):
    """A journal with damage that is not at its end."""

    def __init__(self, path: Path, number: int, why: str) -> None:
        folder = path.parent
        super().__init__(
            f"{path} is damaged at line {number}: {why}\n"
            f"  hint: blockforge report {folder} --salvage {folder}-salvaged copies what can be read; "
            f"blockforge search --resume {folder}-salvaged then goes on"
        )


_LABEL = re.compile(rb',"at":(\d{1,19}),"crc":(\d{1,10})\}\n')
_KEYS: dict[int, tuple[str, ...]] = {
    0: ("study_name", "directions"), 1: ("study_id",), 2: ("study_id", "user_attr"), 3: ("study_id", "system_attr"),
    4: ("study_id", "datetime_start"), 5: ("trial_id", "param_name", "param_value_internal", "distribution"),
    6: ("trial_id", "state", "values"), 7: ("trial_id", "step", "intermediate_value"), 8: ("trial_id", "user_attr"),
    9: ("trial_id", "system_attr"), 10: ("study_id",),
}  # fmt: skip
"""What each operation of Optuna's journal says."""


def labelled(log: Mapping[str, Any], at: int) -> bytes:
    """A line of the journal, for a place in the file."""
    text = json.dumps(log, separators=(",", ":")).encode()[:-1] + b',"at":%d' % at
    return text + b',"crc":%d}\n' % zlib.crc32(text)


def read_line(line: bytes, at: int | None = None) -> dict[str, Any]:
    """What a line says. One of plain Optuna has no label, and is looked at as far as that goes.

    Args:
        at: where it stands.
    Raises: ValueError that says what is wrong with it.
    """
    place = place_of(line)
    if place is not None and at is not None and place != at:
        raise ValueError(f"it was written at byte {place} and stands at byte {at}: lines are missing, or doubled")
    try:
        log = json.loads(line)
    except ValueError:  # UnicodeDecodeError is one
        raise ValueError("it is no JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    code = log.get("op_code") if isinstance(log, dict) else None
    if not isinstance(code, int) or code not in _KEYS or not isinstance(log.get("worker_id"), str):
        raise ValueError("it is no operation of a journal")
    if missing := [key for key in _KEYS[code] if key not in log]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for key in ("at", "crc"):
        log.pop(key, None)
    return log


def place_of(line: bytes) -> int | None:
    """Where a line was written; None: it does not say. Raises: ValueError if it is not as it was written."""
    match = _LABEL.search(line, max(0, len(line) - 64))
    if match is None or match.end() != len(line):
        return None
    if zlib.crc32(line[: match.start(2) - len(b',"crc":')]) != int(match[2]):
        raise ValueError("it is not as it was written (its checksum differs)")
    return int(match[1])


def _follows(line: bytes, end: int) -> bool:
    """Whether a line behind damage belongs to the journal: it can be read, and was not there before.

    Args:
        end: where the damage begins.
    """
    try:
        read_line(line if line.endswith(b"\n") else b"")
        return (place := place_of(line)) is None or place >= end
    except ValueError:
        return False


def _last_byte(file: Any, end: int) -> bytes:
    file.seek(end - 1)
    return file.read(1)


def mend_end(path: Path) -> int:
    """Put damaged lines at the end of a journal aside, into a file beside it; how many bytes those are. Hold its lock.

    Raises: DamageError if what is damaged is not its end.
    """
    with open(path, "r+b") as file:
        size, end, number, damage = 0, 0, 0, None
        for number, line in enumerate(iter(file.readline, b""), 1):
            try:
                if damage is not None:
                    if _follows(line, end):
                        raise damage
                else:
                    read_line(line if line.endswith(b"\n") else b"", size)
                    end = size + len(line)
            except ValueError as e:
                damage = DamageError(path, number, str(e))
            size += len(line)
        if end == size:
            return 0
        if end == 0 and number > 1:  # no line of it is one of a journal
            raise ValueError("it is no journal")
        aside = path.with_name(path.name + ".cut")
        file.seek(end)
        with open(aside, "ab") as kept:
            kept.write(file.read())
        file.truncate(end)
        os.fsync(file.fileno())
        print(f"{path}: {size - end} damaged bytes at its end were moved to {aside.name}", file=sys.stderr, flush=True)
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
