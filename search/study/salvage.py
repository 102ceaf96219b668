"""What can still be read of a damaged journal, as a journal of its own. The damaged one stays as it is.

Trials have no numbers in a journal: the n-th line that makes one makes trial n, and later lines name it so. A lost line
that made a trial is therefore replaced by one that makes an invalid trial. Lines say where they were written
(`journal.labelled`), which tells lines that were added from lines that were lost.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from blockforge.errors import SearchError
from blockforge.search.study.folder import SPACE
from blockforge.search.study.journal import JOURNAL, labelled, place_of, read_line
from blockforge.search.study.records import OUTCOME

_CODE = re.compile(rb'\s*\{\s*"op_code"\s*:\s*(\d{1,2})\s*,')
_STUDY = re.compile(rb'"study_name":"([\w .-]{1,200})","directions":\[(\d(?:,\d)*)\]', re.ASCII)
_MAKES_THE_STUDY, _MAKES_A_TRIAL = 0, 4
_LOST: dict[str, Any] = {
    "op_code": _MAKES_A_TRIAL, "worker_id": "salvaged", "study_id": 0, "datetime_start": None,
    "state": TrialState.PRUNED,
    "datetime_complete": "2000-01-01T00:00:00+00:00", "value": None, "values": None, "distributions": {}, "params": {},
    "user_attrs": {OUTCOME: {"state": "invalid", "reason": "its line in the journal was damaged"}}, "system_attrs": {},
    "intermediate_values": {},
}  # fmt: skip


@dataclass
class Salvaged:
    """What became of the lines of a damaged journal.

    Attributes:
        kept, dropped: how many lines.
        lost_trials: those that were replaced by invalid ones.
        ended_at: the line from which on nothing could be kept; None: it was read to its end.
    """

    kept: int = 0
    dropped: int = 0
    lost_trials: int = 0
    ended_at: int | None = None

    def __str__(self) -> str:
        text = f"{self.kept} lines kept, {self.dropped} damaged or doubled ones left out"
        if self.lost_trials:
            text += f", {self.lost_trials} trials lost"
        return text + (f"; nothing from line {self.ended_at} on" if self.ended_at is not None else "")


def salvage(folder: Path, into: Path) -> Salvaged:
    """Copy what can be read of a folder's journal into another folder, where the search can go on.

    Raises: SearchError if there is no journal, or the other folder holds one.
    """
    source, target = folder / JOURNAL, into / JOURNAL
    if not source.is_file():
        raise SearchError(f"there is no {source} to salvage")
    if target.exists():
        raise SearchError(f"{target} is there already\n  hint: --salvage with a new folder")
    salvaged = Salvaged()
    into.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as lines, open(target, "xb") as out:
        for log in _good(lines, salvaged):
            out.write(labelled(log, out.tell()))
    if (folder / SPACE).is_file():
        shutil.copyfile(folder / SPACE, into / SPACE)
    return salvaged


def _good(lines: Any, salvaged: Salvaged) -> Iterator[dict[str, Any]]:
    """The operations that can be relied on, and stand-ins for trials that were lost."""
    place, damaged = 0, list[bytes]()
    for number, line in enumerate(lines, 1):
        try:
            log = read_line(line if line.endswith(b"\n") else b"")
            own = place_of(line)
        except ValueError:
            damaged.append(line)
            continue
        own = own if own is not None else place + sum(map(len, damaged))
        if own < place:  # it was there before
            salvaged.dropped += 1
            continue
        if own > place:
            codes = [_CODE.match(d) for d in damaged]
            if len(codes) != 1 or codes[0] is None:  # nobody can tell how many trials these lines made
                salvaged.ended_at = number - len(damaged)
                return
            code = int(codes[0][1])
            if code == _MAKES_THE_STUDY and (study := _STUDY.search(damaged[0])) is not None:
                directions = [int(d) for d in study[2].split(b",")]
                yield {
                    "op_code": code,
                    "worker_id": "salvaged",
                    "study_name": study[1].decode(),
                    "directions": directions,
                }
            elif code == _MAKES_A_TRIAL:
                salvaged.lost_trials += 1
                yield _LOST
        salvaged.dropped, damaged, place = salvaged.dropped + len(damaged), [], own + len(line)
        salvaged.kept += 1
        yield log
    salvaged.dropped += len(damaged)
