"""A worker: a process that joins a study and works on it until its target is reached.

    python -m blockforge.search.workers.worker '{"storage": "runs/a", "study": "search", "stream": 1}'

is what launchers start; `blockforge worker` is the same for people.
"""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blockforge.blocks import registry
from blockforge.console.progress import Display
from blockforge.errors import BlockforgeError, SearchError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.notes import note
from blockforge.search.study.attributes import read_plan
from blockforge.search.study.config import LEASE, MAX_IDLE
from blockforge.search.study.folder import TRACKED
from blockforge.search.study.lease import Lease
from blockforge.search.study.plan import announce
from blockforge.search.study.storage import STUDY, join_study, opened, quiet_optuna, shown_url
from blockforge.search.workers.confirm import confirm
from blockforge.search.workers.session import Session
from blockforge.search.workers.trial_progress import Reporter, TrialProgress
from blockforge.search.workers.watchdog import Watchdog
from blockforge.trackers import check_trackers


def work(
    storage: str,
    study: str = STUDY,
    *,
    stream: int | None = None,
    worker: str | None = None,
    reporter: Reporter | None = None,
    max_idle: int = MAX_IDLE,
    lease: float = LEASE,
    plugins: Sequence[str] = (),
    parent: int | None = None,
    folder: str | None = None,
) -> tuple[str | None, int | None]:
    """Work on a study until it is done.

    Args:
        storage: a URL, or a folder or file with a journal.
        stream: tells workers of one seed apart; by default it is drawn.
        worker: the name that the study knows this worker by, if a launcher gave it one; by default it is drawn.
        lease: seconds without a sign of life after which others take a worker for dead.
        plugins: files of blocks to load first.
        folder: for weights and checkpoints; None: that of the journal, or nothing stays.
        parent: the process that started this one for itself: when that is gone, the worker ends.
    Returns: why it ended before the study's target was reached, and the signal that ended it.
    Raises: SearchError if there is no such study, or it cannot be worked on. PluginError.
    """
    registry.load_plugins(plugins)
    drawn = random.SystemRandom().getrandbits(48) if stream is None else stream
    with quiet_optuna(), EvaluationInterrupts() as interrupts, Watchdog(interrupts, parent) as watchdog:
        try:
            with contextlib.ExitStack() as stack:
                known = stack.enter_context(opened(storage, interrupts.stopped, waits=worker is not None))
                joined = join_study(known, study)
                plan = read_plan(joined.user_attrs)
                if (own_folder := _folder(folder, storage)) is not None:
                    check_trackers(plan.config.log.trackers, own_folder / TRACKED)
                elif plan.config.log.trackers:
                    note("this worker has no folder to log its trials in")
                if reporter is not None:
                    announce(plan)
                own = stack.enter_context(Lease(joined, lease, worker, parent))
                session = Session(plan, joined, own, interrupts, drawn, own_folder)
                watchdog.overtime = session.overtime
                reason = _run(session, own, reporter or TrialProgress(Display()), max_idle)
        except OSError as e:  # what an objective raises is kept with its trial: this is the journal
            raise SearchError(f"cannot write in {shown_url(storage)}: {e.strerror or e}") from e
        return reason, interrupts.received


def _folder(folder: str | None, storage: str) -> Path | None:
    if folder is not None or "://" in storage:
        return Path(folder) if folder is not None else None
    return Path(storage).parent if storage.endswith(".journal") else Path(storage)


def _run(session: Session, lease: Lease, reporter: Reporter, max_idle: int) -> str | None:
    reporter.start(session.plan.target, session.records, session.plan.signs)
    try:
        reason = session.run(reporter, max_idle)
        reason = confirm(session) or reason
    except BlockforgeError as e:
        lease.end(str(e))
        raise
    finally:
        reporter.stop()
    lease.end(reason)
    return reason


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    """What `work` is given. Raises: SearchError."""
    try:
        (text,) = given
        arguments: dict[str, Any] = json.loads(text)
        inspect.signature(work).bind(**arguments)
    except (TypeError, ValueError) as e:
        hint = "for people there is blockforge worker"
        raise SearchError(f"a worker takes its arguments as one JSON object: {e}\n  hint: {hint}") from None
    return arguments


def main(given: Sequence[str]) -> int:
    """A worker that a launcher started; its standard error is kept."""
    try:
        _, received = work(**_arguments(given))
    except BlockforgeError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return e.exit_code
    return 128 + received if received is not None else 0


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main(sys.argv[1:]))
