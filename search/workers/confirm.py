"""What a worker does once the search has ended: it trains the best again, beside the others."""

from __future__ import annotations

from blockforge.search.confirm.entrants import entrants
from blockforge.search.confirm.session import ConfirmSession, Progress, open_confirmation
from blockforge.search.optuna_private import storage_of
from blockforge.search.workers.session import Session


def confirm(session: Session, progress: Progress = lambda done, most: None) -> str | None:
    """Train the best of a session's study again, where there are data; why that ended before, if it did."""
    if session.plan.data is None or session.interrupts.received is not None:
        return None
    study = open_confirmation(storage_of(session.study), session.study.study_name)
    session.history.sync()
    entered = entrants(session.plan, session.records)
    own = ConfirmSession(
        session.plan, study, entered, session.lease, session.watch, session.interrupts, session.folder
    )  # fmt: skip
    return own.run(progress)
