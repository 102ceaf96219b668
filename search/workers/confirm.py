"""What a worker does once the search has ended: it trains the best again, beside the others."""

from __future__ import annotations

from blockforge.console.progress import Display
from blockforge.search.confirm.control import control_plan, open_control, read_control
from blockforge.search.confirm.entrants import entrants
from blockforge.search.confirm.session import ConfirmSession, Progress, open_confirmation
from blockforge.search.optuna_private import storage_of
from blockforge.search.workers.session import Session
from blockforge.search.workers.trial_progress import Reporter, TrialProgress


def confirm(
    session: Session, progress: Progress = lambda done, most: None, control_progress: Reporter | None = None
) -> str | None:
    """Train the best of a session's study again, where there are data; why that ended before, if it did.

    Args:
        control_progress: shows how far the random candidates are that are evaluated before; None: nobody looks.
    """
    if session.plan.data is None or session.interrupts.received is not None:
        return None
    session.history.sync()
    if session.plan.config.confirm.control and (why := _control(session, control_progress)) is not None:
        return why
    storage, name = storage_of(session.study), session.study.study_name
    entered = entrants(session.plan, session.records, read_control(storage, name, session.plan))
    own = ConfirmSession(
        session.plan, open_confirmation(storage, name), entered, session.lease, session.watch, session.interrupts,
        session.folder, session.mirror.kept if session.mirror is not None else None,
    )  # fmt: skip
    return own.run(progress)


def _control(session: Session, progress: Reporter | None) -> str | None:
    """Evaluate as many random candidates as the search has; why that ended before, if it was interrupted."""
    plan = control_plan(session.plan, session.history.evaluated)
    study = open_control(storage_of(session.study), session.study.study_name, plan)
    own = Session(plan, study, session.lease, session.interrupts, session.stream, session.folder, session.watch)
    reporter = progress or TrialProgress(Display())
    reporter.start(plan.target, own.records, plan.signs)
    try:
        why = own.run(reporter)
    finally:
        reporter.stop()
    return why if session.interrupts.received is not None else None
