"""Where studies are: an Optuna journal in the output folder, or any storage by URL."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.study import Study

from blockforge.errors import SearchError, did_you_mean
from blockforge.extras import need
from blockforge.search.objectives.measure import Direction
from blockforge.search.optuna_private import engine_of
from blockforge.search.study import patience
from blockforge.search.study.attributes import IDENTITY, read_identity
from blockforge.search.study.journal import JOURNAL, Journal
from blockforge.search.study.patience import Patience, PatientStorage, StorageAwayError, said

STUDY = "search"
_SQLITE_WAIT = 60.0
_MEETINGS = 10
"""So often tables are tried to be made in an empty database."""
_POSTGRESQL = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds; a server whose machine has vanished is noticed within a minute."""


def open_storage(
    where: str | Path | None, patience: Patience, *, waits: bool = False, reading: bool = False
) -> BaseStorage:
    """A storage: the journal in a folder, mended if it was torn; a database by its URL; None: in memory.

    Args:
        patience: with what does not answer later.
        waits: be patient in opening it too.
        reading: leave a journal as it is, its end included.
    Raises: SearchError if it cannot be opened.
    """
    if where is None:
        return InMemoryStorage()
    if isinstance(where, str) and "://" in where:
        return PatientStorage(_by_url(where, patience if waits else Patience(patience.what, 0)), patience)
    path = Path(where)
    path = path if path.suffix == ".journal" else path / JOURNAL
    try:
        journal = Journal(path, reading)
        return PatientStorage(JournalStorage(journal), patience, journal.sync)
    except SearchError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as e:
        raise SearchError(f"{path} is not a study that can be read: {e}") from None


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """No line on the terminal for each study and trial; the caller's own setting comes back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def opened(
    where: str | Path | None,
    given_up: Callable[[], bool] = lambda: False,
    *,
    waits: bool = False,
    reading: bool = False,
) -> Iterator[BaseStorage]:
    """`open_storage`, with connections closed at the end.

    Args:
        given_up: once it is true, a storage that is away is no longer waited for.
    """
    seconds = patience.DATABASE if "://" in str(where) else patience.FILE
    patient = Patience(shown_url(where or "memory"), seconds, given_up)
    storage = open_storage(where, patient, waits=waits, reading=reading)
    try:
        yield storage
    finally:
        with contextlib.suppress(Exception):  # a server that is away closes nothing
            _close(storage.inner if isinstance(storage, PatientStorage) else storage)


def _close(storage: BaseStorage) -> None:
    storage.remove_session()
    engine = engine_of(storage)
    if engine is not None:
        engine.dispose()
    elif isinstance(storage, optuna.storages.GrpcStorageProxy):
        storage.close()


def _by_url(url: str, patience: Patience) -> BaseStorage:
    scheme, _, rest = url.partition("://")
    if scheme == "grpc":
        return _grpc(rest, patience)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if scheme == "sqlite":
        if rest in ("", "/") or ":memory:" in rest:
            raise SearchError(f"the storage {url} is gone when its process ends\n  hint: sqlite:///FILE")
        options = {"connect_args": {"timeout": _SQLITE_WAIT}}
    elif scheme.startswith("postgresql"):
        need("postgresql", "psycopg")
        url = f"postgresql+psycopg://{rest}" if scheme == "postgresql" else url
        options["connect_args"] = dict(_POSTGRESQL) if url.startswith("postgresql+psycopg") else {}
    elif not scheme.startswith(("mysql", "mariadb")):
        known = ("sqlite", "postgresql+psycopg", "grpc", "mysql+pymysql")
        raise SearchError(f"storages of the kind '{scheme}' are not known\n  hint: {did_you_mean(scheme, known)}")
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return patience.insist(lambda: _database(url, options))
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, StorageAwayError) as e:
        raise SearchError(f"the storage {shown_url(url)} cannot be opened: {said(e)}") from None


def _database(url: str, options: dict[str, Any]) -> BaseStorage:
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    for left in reversed(range(_MEETINGS)):
        try:
            return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=options))
        except SQLAlchemyError as e:  # another process makes the same tables, or their first rows, at this moment
            if not left or not (isinstance(e, IntegrityError) or "already exists" in str(e)):
                raise
            time.sleep(0.2)
    raise AssertionError


def _grpc(address: str, patience: Patience) -> BaseStorage:
    host, _, port = address.strip("/").partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=host or "localhost", port=int(port or 13000))
    try:
        patience.insist(lambda: storage.wait_server_ready(timeout=20))
    except Exception as e:
        raise SearchError(f"no storage server answers at grpc://{address}: {type(e).__name__}") from None
    return storage


def shown_url(url: str | Path) -> str:
    """A URL without its password."""
    head, at, tail = str(url).rpartition("@")
    scheme, _, user = head.partition("://")
    return f"{scheme}://{user.partition(':')[0]}{at}{tail}" if at else str(url)


def read_attributes(where: str | Path | None, name: str = STUDY) -> dict[str, Any] | None:
    """The attributes of a study; None if there is none."""
    if where is None or (("://" not in str(where)) and not _journal_exists(Path(where))):
        return None
    with opened(where, reading=True) as storage:
        return study_attributes(storage, name)


def study_attributes(storage: BaseStorage, name: str) -> dict[str, Any] | None:
    """The attributes of a study in an open storage; None if there is none."""
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    except KeyError:
        return None


def _journal_exists(path: Path) -> bool:
    return (path if path.suffix == ".journal" else path / JOURNAL).exists()


def open_study(
    storage: BaseStorage,
    wanted: Mapping[str, Any],
    space_differs_at: Sequence[str] = (),
    *,
    name: str = STUDY,
    directions: Sequence[Direction] = ("maximize",),
    metric_names: Sequence[str] | None = None,
) -> Study:
    """The study in `storage`, made if there is none.

    Args:
        wanted: what the study keeps of itself; see `attributes`. Its identity must be equal for it to go on.
        space_differs_at: paths to name in the error if the spaces differ.
        metric_names: what the values are called in Optuna's tools.
    Raises: SearchError if the study was started with another identity; says what differs.
    """
    identity = wanted.get(IDENTITY, {})
    known = read_identity(study_attributes(storage, name) or {})
    if known is not None and known != identity:
        raise SearchError(_mismatch(known, identity, space_differs_at))
    study = optuna.create_study(storage=storage, study_name=name, directions=list(directions), load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # names of values, since Optuna 3.2
        if metric_names is not None and study.metric_names != list(metric_names):
            study.set_metric_names(list(metric_names))
    before = study.user_attrs
    for key, value in wanted.items():  # its identity is the last of them: a study that has one is whole
        if before.get(key) != value and (key != IDENTITY or known is None):
            study.set_user_attr(key, value)
    return study


def join_study(storage: BaseStorage, name: str) -> Study:
    """A study that exists. Raises: SearchError with the names of those that do."""
    try:
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        names = [s.study_name for s in storage.get_all_studies()]
        hint = did_you_mean(name, names, "studies")
        raise SearchError(f"there is no study named '{name}'\n  hint: {hint}") from None


def _mismatch(known: Mapping[str, Any], identity: Mapping[str, Any], space_differs_at: Sequence[str]) -> str:
    lines = ["the folder holds the study of another search:"]
    for key in {**known, **identity}:
        if known.get(key) != identity.get(key):
            lines.append(f"  {key}: the study has {_shown(known.get(key))}, this run {_shown(identity.get(key))}")
            if key == "space" and space_differs_at:
                more = ", ..." if len(space_differs_at) > 6 else ""
                lines.append(f"    they differ at {', '.join(space_differs_at[:6])}{more}")
    return "\n".join([*lines, "  hint: give another --out, or the settings that the study was started with"])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{v} {k}" for k, v in value.items()) or "none"
    return "none" if value is None else str(value)
