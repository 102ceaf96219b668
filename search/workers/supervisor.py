"""Several workers of one search: started, started again when they die, followed until all have ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.study import Study

from blockforge.errors import SearchError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.notes import note
from blockforge.search.study.history import History
from blockforge.search.study.lease import Clock, Watch
from blockforge.search.study.trials import recover
from blockforge.search.workers.launcher import Handle, Starter, WorkerSettings, starter
from blockforge.search.workers.ray_tasks import ray_tasks
from blockforge.search.workers.trial_progress import Reporter

_EVERY, _LOOK, _UNSTEADY = 0.2, 2.0, 5.0
_GRACE = 30.0
PATIENCE = 15.0
"""Seconds after which a worker that has not begun is told of."""
_HOPELESS = 5
"""So many deaths a worker without a trial that ends in between, and none is started again."""


@dataclass
class _Slot:
    """A place for a worker."""

    stream: int
    handle: Handle
    over: bool = False
    why: str | None = None
    """It was made to end, if it was."""


def supervise(
    settings: WorkerSettings,
    study: Study,
    history: History,
    reporter: Reporter,
    interrupts: EvaluationInterrupts,
    following: Sequence[Study] = (),
    progress: Callable[[], bool] = lambda: False,
) -> str | None:
    """Start workers, start those again that die, and follow the study until all have ended.

    Args:
        following: the studies of what workers do once the search has ended.
        progress: shows how far these are, and says whether one has ended since.
    Returns: why the search ended before its target, if it did.
    Raises: SearchError if a worker cannot work.
    """
    clock = Clock(_UNSTEADY)
    watch = Watch(study, settings.workers.lease, lambda: clock.steady)
    studies = [study, *following]
    with (ray_tasks if settings.workers.launcher == "ray" else starter)(settings) as start:
        waiting = _Waiting(watch)
        slots, deaths = [_Slot(i, start(i, _name())) for i in range(settings.workers.number)], 0
        looked = time.monotonic()
        try:
            while not all(slot.over for slot in slots):
                if interrupts.received is not None:
                    _stop(slots)
                clock.tick()
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    _end_silent(slots, watch)
                    waiting.look(slots)
                died = sum(_look_after(slot, studies, start, interrupts) for slot in slots)
                for record in (ended := history.sync()):
                    reporter.update(record)
                deaths = deaths + died if not (progress() or ended) else 0
                if deaths >= _HOPELESS * settings.workers.number:
                    raise SearchError(f"workers die before they finish a trial\n{slots[0].handle.trace()}")
                time.sleep(_EVERY)
        finally:
            _stop(slots)
        for record in history.sync():
            reporter.update(record)
    if interrupts.received is not None:
        return "it was interrupted"
    return _reason(study, slots)


def _look_after(slot: _Slot, studies: list[Study], start: Starter, interrupts: EvaluationInterrupts) -> bool:
    """Free the trial of a worker that died and start another in its place; whether one died."""
    if slot.over or (how := slot.handle.ended()) is None:
        return False
    if slot.handle.mistake is not None:
        raise SearchError(slot.handle.mistake)
    if how:
        worker = slot.handle.worker
        how = slot.why or how
        for study in studies:
            recover(study, lambda workers: workers & {worker}, {"reason": how, "trace": slot.handle.trace()})
    if not how or interrupts.received is not None:
        slot.over = True
        return False
    slot.handle, slot.why = start(slot.stream, _name()), None
    return True


def _end_silent(slots: list[_Slot], watch: Watch) -> None:
    """Make workers end that are stopped or hang: they say nothing, and hold a trial."""
    live = {s.handle.worker: s for s in slots if not s.over}
    for worker in watch.silent(set(live)):
        live[worker].why = f"it gave no sign of life for {watch.seconds:g} s"
        live[worker].handle.kill()


def _stop(slots: list[_Slot]) -> None:
    """Let workers end in order; after a while, make them."""
    live = [s.handle for s in slots if s.handle.ended() is None]
    for handle in live:
        handle.stop()
    end = time.monotonic() + _GRACE
    while any(h.ended() is None for h in live) and time.monotonic() < end:
        time.sleep(0.05)
    for handle in live:
        if handle.ended() is None:
            handle.kill()


def _reason(study: Study, slots: list[_Slot]) -> str | None:
    lives = Watch(study).lives()
    reasons = [lives.get(s.handle.worker, {}).get("ended") for s in slots]
    return next((r for r in reasons if r not in (None, "done")), None)


class _Waiting:
    """Says how many workers have not begun, where that is because a cluster has no slot for them."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.told, self.since = watch, 0, dict[str, float]()

    def look(self, slots: list[_Slot]) -> None:
        lives, now = self.watch.lives(), time.monotonic()
        own = [s.handle for s in slots if not s.over and s.handle.worker not in lives]
        late = [h for h in own if now - self.since.setdefault(h.worker, now) > PATIENCE]
        waiting = [why for h in late if (why := h.waits_for()) is not None]
        if waiting and len(waiting) != self.told:
            note(f"{len(waiting)} of {len(slots)} workers wait for a slot: {waiting[0]}")
        self.told = len(waiting)


def _name() -> str:
    return uuid.uuid4().hex[:12]
