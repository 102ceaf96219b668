"""A PostgreSQL server for tests: Debian's, in a folder that goes away. It refuses to run as root, so root lends it
to the user `postgres`."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is; the newest version where there are several."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda p: int(p.split("/")[4].split(".")[0]))
    return found[-1] if found else shutil.which(name)


def missing() -> str | None:
    """Why no server can be started, if so."""
    if any(program(name) is None for name in ("initdb", "pg_ctl")):
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user 'postgres'"
    return None


class Server:
    """A server with an empty database, which can be stopped and started again.

    Attributes:
        url: of the database.
    """

    def __init__(self, folder: Path) -> None:
        self.user, self.data = _lend(folder), str(folder / "data")
        initdb, pg_ctl = program("initdb"), program("pg_ctl")
        assert initdb is not None
        assert pg_ctl is not None
        self.pg_ctl, port = pg_ctl, _free_port()
        self.options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c max_connections=200"
        self.url = f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        self.log = str(folder / "log")
        _run([initdb, "-D", self.data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"], self.user)

    def start(self) -> None:
        _run([self.pg_ctl, "-D", self.data, "-l", self.log, "-o", self.options, "-w", "start"], self.user)

    def stop(self, mode: str = "immediate") -> None:
        """Args: mode: `immediate` cuts everything off as a crash does, `fast` ends connections, `smart` waits."""
        _run([self.pg_ctl, "-D", self.data, "-m", mode, "-w", "stop"], self.user)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server of its own, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as name:
        found = Server(Path(name))
        found.start()
        try:
            yield found
        finally:
            found.stop()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    with running() as found:
        yield found.url


def _lend(folder: Path) -> str | None:
    """Give a folder to the user that the server runs as."""
    folder.chmod(0o755)
    if os.getuid() != 0:
        return None
    os.chown(folder, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)
    return "postgres"


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(
        command, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} failed"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
