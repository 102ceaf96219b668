"""Several workers at one study, as sessions in one process, so that their steps can be put in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.study.config import given
from blockforge.search.study.lease import Lease
from blockforge.search.study.plan import resolve
from blockforge.search.study.storage import open_study, opened, quiet_optuna
from blockforge.search.workers.session import Session, Task
from blockforge.spec import Spec

Workers = Callable[..., Session]
GIVEN = {"stages.1.dim": 24, "stages.1.depth": 1}


@pytest.fixture(params=["journal", "sqlite"])
def workers(request: pytest.FixtureRequest, few: Spec, tmp_path: Path) -> Iterator[Workers]:
    """Makes workers of one study, each with a storage of its own."""
    with ExitStack() as stack:
        stack.enter_context(quiet_optuna())

        def worker(objective: Callable[[bf.Architecture], float], **settings: object) -> Session:
            goal = {"objectives": [objective], "trials": 6, **settings}
            plan = resolve(given(space={"source": few}, goal=goal, proposals={"sampler": "random"}))
            where = tmp_path if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
            storage = stack.enter_context(opened(where))
            study = open_study(storage, {})
            lease = stack.enter_context(Lease(study))
            return Session(plan, study, lease, EvaluationInterrupts())

        yield worker


def test_of_two_with_one_network_the_lower_number_evaluates_it(workers: Workers) -> None:
    seen = []

    def first(arch: bf.Architecture) -> float:
        seen.append("first")
        record = other.step(task)
        assert (record.state, record.duplicate_of, record.values) == ("duplicate", 0, None)
        return 1.0

    def second(arch: bf.Architecture) -> float:
        seen.append("second")
        return 2.0

    one, other, task = workers(first), workers(second), Task(GIVEN)
    assert one.step(task).score == 1.0
    assert seen == ["first"]
    late = other.step(task)
    assert (late.state, late.duplicate_of, late.score) == ("duplicate", 0, 1.0)


def test_a_trial_that_another_worker_claims_while_it_is_written_is_given_up(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look, then both write: only the order of the numbers decides."""
    from blockforge.search.workers import session as module

    one, other, task = workers(lambda arch: 1.0), workers(lambda arch: 2.0), Task(GIVEN)
    written = module.make_trial

    def after_the_other(study, trial) -> int:
        monkeypatch.setattr(module, "make_trial", written)
        assert other.step(task).score == 2.0
        return written(study, trial)

    monkeypatch.setattr(module, "make_trial", after_the_other)
    record = one.step(task)
    assert (record.number, record.state, record.duplicate_of, record.score) == (1, "duplicate", 0, 2.0)


def test_a_worker_that_was_taken_for_dead_changes_nothing(workers: Workers) -> None:
    def slow(arch: bf.Architecture) -> float:
        from blockforge.search.study.trials import recover

        recover(other.study, lambda workers: workers, {"reason": "it fell asleep"})
        other._next()
        assert other.step(other._next()).score == 2.0
        return 1.0

    one, other = workers(slow), workers(lambda arch: 2.0)
    assert one.step(one._next()) is None
    other.history.sync()
    first, second = other.records
    assert (first.state, first.reason) == ("interrupted", "it fell asleep (attempt 1)")
    assert (second.state, second.retry_of, second.retries, second.score) == ("scored", 0, 1, 2.0)
    assert other.history.evaluated == 1
    assert not other.history.retries


def test_no_more_candidates_than_asked_for(workers: Workers) -> None:
    """What is under way counts."""

    def last(arch: bf.Architecture) -> float:
        assert other._next() is None
        return 1.0

    one, other = workers(last, trials=1), workers(last, trials=1)
    assert one.step(one._next()).state == "scored"
    assert other._next() is None
