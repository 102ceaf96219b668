"""Storages that are away for a while: nothing ends, nothing is lost, nothing is written twice."""

from __future__ import annotations

import gc
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from blockforge.search import search
from blockforge.search.study import patience
from blockforge.search.study.patience import Patience, PatientStorage, StorageAwayError
from blockforge.search.study.records import EVALUATED
from blockforge.search.study.storage import quiet_optuna
from blockforge.spec import Spec

sys.path.insert(0, str(Path(__file__).parent))
import postgres

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


class Flaky(InMemoryStorage):
    """Raises at every second call of a kind, before it does its work or (as a lost answer) after it."""

    def __init__(self, method: str, after: bool) -> None:
        super().__init__()
        self.method, self.after, self.calls = method, after, 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name != super().__getattribute__("method"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            lost = self.calls % 2
            answer = found(*args, **kwargs) if self.after or not lost else None
            if lost:
                raise StorageInternalError("server closed the connection unexpectedly")
            return answer

        return call


WRITES = [
    "create_new_study",
    "create_new_trial",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_study_user_attr",
]


@pytest.mark.parametrize("after", [False, True], ids=["lost request", "lost answer"])
@pytest.mark.parametrize("method", [*WRITES, "get_all_trials", "get_study_id_from_name"])
def test_every_call_is_done_once_whenever_the_connection_breaks(method: str, after: bool) -> None:
    flaky = Flaky(method, after)
    storage = PatientStorage(flaky, Patience("it", 30))
    with quiet_optuna():
        study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        study.set_user_attr("key", 1)
        for number in range(4):
            made = storage.create_new_trial(
                study._study_id, create_trial(state=TrialState.RUNNING, user_attrs={"worker": "w", "n": number // 2})
            )
            storage.set_trial_user_attr(made, "outcome", number)
            assert storage.set_trial_state_values(made, TrialState.COMPLETE, [float(number)])
    trials = storage.get_all_trials(study._study_id)
    assert [(t.number, t.value, t.user_attrs["outcome"]) for t in trials] == [(i, float(i), i) for i in range(4)]
    assert study.user_attrs == {"key": 1}
    assert len(storage.get_all_studies()) == 1
    assert flaky.calls > 1


def test_patience_ends_with_what_was_wrong_and_mistakes_end_it_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> None:
        raise StorageInternalError("outer") from ConnectionError("no route to host")

    with pytest.raises(StorageAwayError, match=r"has not answered for \d+ s: no route to host\n  hint: .*goes on"):
        Patience("db", 1.0).insist(away)
    assert "db does not answer (no route to host); trying again for 1 s" in capsys.readouterr().err
    with pytest.raises(StorageAwayError):
        Patience("db", 600, lambda: True).insist(away)  # Ctrl-C
    calls: list[int] = []

    def wrong() -> None:
        calls.append(1)
        raise KeyError("no such study")

    with pytest.raises(KeyError):
        Patience("db", 600).insist(wrong)
    assert len(calls) == 1


def interrupted(
    space: Any, url: str, folder: Path, away: Callable[[Callable[[], None]], None], workers: int = 1
) -> None:
    """A search during which the storage goes away, once some trials are done; every trial ends as it would have.

    `away(gone)` takes the storage away and brings it back; it calls `gone` between. Evaluations wait for that, so
    that the search is not over before, however slow the machine is.
    """
    over, gate = threading.Event(), folder.with_name("gate")

    def cut() -> None:
        while not over.wait(0.05):
            if gate.with_suffix(".waited").exists():
                away(gate.touch)
                return

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        objective = f"{Path(__file__).with_name('gated.py')}:Gated:file={gate}"
        found = search(
            space, trials=14, workers=workers, out=folder, storage=url, study="s", objective=objective, sampler="random"
        )
    finally:
        over.set()
        thread.join()
    assert gate.exists(), "the storage was never away"
    done = [t.hash for t in found.trials if t.state in EVALUATED]
    assert 14 <= len(done) <= 14 + workers - 1
    assert len(done) == len(set(done))
    assert [t.number for t in found.trials] == list(range(len(found.trials)))
    assert not found.counts["running"]
    assert not found.counts["failed"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_restart_of_postgresql_ends_nothing(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    errors: list[str] = []

    def told() -> bool:
        errors.append(capfd.readouterr().err)
        logs = "".join(f.read_text() for f in (tmp_path / "run").rglob("*.log"))
        return "trying again for 600 s" in "".join(errors) + logs

    with postgres.running() as server:

        def restart(gone: Callable[[], None]) -> None:
            server.stop(mode)
            gone()
            end = time.monotonic() + 60
            while not told() and time.monotonic() < end:
                time.sleep(0.1)
            server.start()

        interrupted(TINY, server.url, tmp_path / "run", restart, workers=1 if mode == "fast" else 2)
    gc.collect()  # the connections that the server cut are told of here, where that is expected, and in no other test
    assert told()


def test_a_restart_of_the_grpc_server_ends_nothing(tiny: Spec, tmp_path: Path) -> None:
    from optuna.storages._grpc.server import make_server

    from blockforge.search.study.storage import opened

    port = postgres._free_port()
    with opened(f"sqlite:///{tmp_path}/served.db") as storage:
        servers = [make_server(storage, "localhost", port)]
        servers[0].start()

        def restart(gone: Callable[[], None]) -> None:
            servers[0].stop(None).wait()
            gone()
            time.sleep(0.5)
            servers.append(make_server(storage, "localhost", port))
            servers[1].start()

        interrupted(tiny, f"grpc://localhost:{port}", tmp_path / "run", restart)
        assert len(servers) == 2
        servers[1].stop(None).wait()


def test_a_locked_sqlite_file_ends_nothing(tiny: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blockforge.search.study import storage

    monkeypatch.setattr(storage, "_SQLITE_WAIT", 0.1)

    def lock(gone: Callable[[], None]) -> None:
        with sqlite3.connect(tmp_path / "s.db", isolation_level=None, timeout=20) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            gone()
            time.sleep(1.0)
            connection.execute("ROLLBACK")

    interrupted(tiny, f"sqlite:///{tmp_path}/s.db", tmp_path / "run", lock)


def test_a_journal_that_cannot_be_written_for_a_while(tiny: Spec, tmp_path: Path, monkeypatch, capsys) -> None:
    from blockforge.search.study.journal import Journal

    written, refused = Journal.append_logs, []

    def full(self: Journal, logs: list[dict[str, Any]]) -> None:
        if self.path.stat().st_size > 6000 and len(refused) < 3:
            refused.append(len(logs))
            raise OSError(28, "No space left on device")
        written(self, logs)

    monkeypatch.setattr(Journal, "append_logs", full)
    monkeypatch.setattr(patience, "_LONGEST", 0.2)
    found = search(tiny, trials=6, objective="depth", out=tmp_path / "run", sampler="random")
    assert found.evaluated == 6
    assert len(refused) == 3
    told = capsys.readouterr().err
    assert "(No space left on device); trying again for 60 s" in told
    assert "answers again" in told
