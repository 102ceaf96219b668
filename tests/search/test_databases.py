"""Studies in databases: SQLite, a real PostgreSQL, and a gRPC server before one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

import blockforge as bf
from blockforge.cli import main
from blockforge.search import SearchError, open_result, search
from blockforge.search.study.records import EVALUATED
from blockforge.search.study.storage import opened, shown_url
from blockforge.spec import Spec

sys.path.insert(0, str(Path(__file__).parent))
import postgres

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A gRPC server before an SQLite file."""
    from optuna.storages._grpc.server import make_server

    port = postgres._free_port()
    with opened(f"sqlite:///{tmp_path}/served.db") as storage:
        server = make_server(storage, "localhost", port)
        server.start()
        yield f"grpc://localhost:{port}"
        server.stop(None).wait()


def same_as_in_a_journal(space: Spec, url: str, tmp_path: Path) -> None:
    """One seed is one run, wherever it is kept; and it goes on."""
    plain = search(space, trials=8, budget="1MFLOPs", objective=size, out=tmp_path / "plain")
    folder = tmp_path / "kept"
    search(space, trials=3, budget="1MFLOPs", objective=size, out=folder, storage=url, study="one")
    kept = search(trials=8, objective=size, out=folder)
    keys = ("state", "holes", "values", "hash", "macs")
    assert [[getattr(t, k) for k in keys] for t in kept.trials] == [[getattr(t, k) for k in keys] for t in plain.trials]
    assert (folder / "trials.csv").exists()
    shown = open_result(url, "one")
    assert [t.hash for t in shown.ranked] == [t.hash for t in plain.ranked]


def test_sqlite(tiny: Spec, tmp_path: Path) -> None:
    same_as_in_a_journal(tiny, f"sqlite:///{tmp_path}/study.db", tmp_path)


def test_postgresql(tiny: Spec, tmp_path: Path, postgresql: str) -> None:
    same_as_in_a_journal(tiny, postgresql, tmp_path)


def test_grpc(tiny: Spec, tmp_path: Path, served: str) -> None:
    same_as_in_a_journal(tiny, served, tmp_path)


def test_workers_on_postgresql(tmp_path: Path, postgresql: str) -> None:
    found = search(
        TINY, trials=20, workers=2, objective="depth", out=tmp_path, storage=postgresql, study="crew", sampler="random"
    )
    done = [t.hash for t in found.trials if t.state in EVALUATED]
    assert len(done) == len(set(done))
    assert 20 <= len(done) <= 21
    assert len({t.worker for t in found.trials}) == 2
    assert main(["report", postgresql, "--study", "crew", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "trials.csv").read_text() == (tmp_path / "trials.csv").read_text()


def test_optuna_and_its_dashboard_read_the_study(tiny: Spec, tmp_path: Path) -> None:
    """What the dashboard reads is what Optuna loads: values, constraints and all."""
    url = f"sqlite:///{tmp_path}/study.db"
    found = search(tiny, trials=6, budget="500KFLOPs", objectives=[size, "macs"], storage=url, study="front", seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = optuna.load_study(study_name="front", storage=url)
        best = {t.number for t in study.best_trials}
    assert best == {t.number for t in found.pareto}
    assert len(study.trials) == len(found.trials)


@pytest.mark.parametrize(
    "lost",
    [
        IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed: alembic_version.version_num")),
        OperationalError("CREATE TABLE", {}, Exception("table studies already exists")),
    ],
    ids=["row", "table"],
)
def test_another_process_may_make_the_tables_at_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    calls: list[str] = []

    class Beaten(optuna.storages.RDBStorage):
        def __init__(self, url: str, **kwargs: Any) -> None:
            calls.append(url)
            if len(calls) == 1:
                raise lost
            super().__init__(url, **kwargs)

    monkeypatch.setattr(optuna.storages, "RDBStorage", Beaten)
    with opened(f"sqlite:///{tmp_path}/study.db") as storage:
        assert storage.get_all_studies() == []
    assert len(calls) == 2


def test_mistakes(tiny: Spec, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"storages of the kind 'oracle' are not known\n  hint: .*grpc"):
        search(tiny, trials=1, storage="oracle://host/db")
    with pytest.raises(SearchError, match=r"the storage sqlite:////nowhere/at/all\.db cannot be opened"):
        search(tiny, trials=1, storage="sqlite:////nowhere/at/all.db")
    for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        with pytest.raises(SearchError, match=rf"the storage {url} is gone when .*\n  hint: sqlite:///FILE"):
            search(tiny, trials=1, storage=url)
    with pytest.raises(SearchError, match=r"there is no study in sqlite:///.*\n.*--study"):
        open_result(f"sqlite:///{tmp_path}/empty.db", "one")
    assert shown_url("postgresql+psycopg://me:secret@host:5432/db") == "postgresql+psycopg://me@host:5432/db"
