"""A worker: a process that joins a study and works on it until its target is reached.

    python -m blockforge.search.worker '{"storage": "runs/a", "study": "search", "stream": 1}'

is what launchers start; `blockforge worker` is the same for people.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from optuna.exceptions import StorageInternalError

from blockforge.blocks import registry
from blockforge.errors import BlockforgeError
from blockforge.search.errors import SearchError
from blockforge.search.interrupts import Interrupts
from blockforge.search.lease import LEASE, Lease
from blockforge.search.plan import read_plan
from blockforge.search.progress import Reporter, Silent
from blockforge.search.sampling import quiet_optuna
from blockforge.search.session import MAX_IDLE, Session
from blockforge.search.storage import STUDY, join_study, opened, shown_url

_PATIENCE = 600.0
"""Seconds for which a storage may be away."""


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
) -> tuple[str | None, int | None]:
    """Work on a study until it is done.

    Args:
        storage: a URL, or a folder or file with a journal.
        stream: tells workers of one seed apart; by default it is drawn.
        worker: the name that the study knows this worker by; by default it is drawn.
        lease: seconds without a sign of life after which others take a worker for dead.
        plugins: files of blocks to load first.
    Returns: why it ended before the study's target was reached, and the signal that ended it.
    Raises: SearchError if there is no such study, or it cannot be worked on. PluginError.
    """
    registry.load_plugins(plugins)
    drawn = random.SystemRandom().getrandbits(48) if stream is None else stream
    with quiet_optuna(), Interrupts() as interrupts:

        def attempt(name: str | None) -> str | None:
            shown = reporter or Silent()
            with contextlib.ExitStack() as stack:
                known, journal = stack.enter_context(opened(storage))
                found = join_study(known, study)
                plan = read_plan(found.user_attrs)
                own = stack.enter_context(Lease(found, lease, name))
                session = Session(plan, found, own, journal, interrupts, drawn)
                shown.start(plan.target, session.records, plan.signs)
                try:
                    reason = session.run(shown, max_idle)
                except BlockforgeError as e:
                    own.end(str(e))
                    raise
                finally:
                    shown.stop()
                own.end(reason)
                return reason

        try:
            reason = patiently(attempt, worker, interrupts)
        except OSError as e:  # what an objective raises is kept with its trial: this is the journal
            raise SearchError(f"cannot write in {shown_url(storage)}: {e.strerror or e}") from e
        return reason, interrupts.received


def patiently(attempt: Callable[[str | None], str | None], worker: str | None, interrupts: Interrupts) -> str | None:
    """Try again while the storage is away. The trial that was open then is a dead worker's, and free."""
    wait, since = 1.0, None
    while True:
        started = time.monotonic()
        try:
            return attempt(worker)
        except Exception as e:
            if not _is_away(e):
                raise
            now = time.monotonic()
            since = now if since is None or now - started > _PATIENCE else since
            if now - since > _PATIENCE or interrupts.received is not None:
                raise SearchError(f"the storage does not answer: {str(e).strip().splitlines()[0]}") from e
            print(f"the storage does not answer, trying again in {wait:.0f} s", file=sys.stderr, flush=True)
        time.sleep(wait * random.uniform(0.75, 1.25))
        wait, worker = min(60.0, 2 * wait), None


def _is_away(error: Exception) -> bool:
    """Whether an error says that a database or server does not answer now."""
    if isinstance(error, StorageInternalError):
        return True
    return any(kind.__module__.partition(".")[0] == "grpc" for kind in type(error).__mro__)


def main(arguments: dict[str, Any]) -> int:
    """A worker that a launcher started; its standard error is kept."""
    faulthandler.enable()
    try:
        _, received = work(**arguments)
    except BlockforgeError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return e.exit_code
    return 128 + received if received is not None else 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
