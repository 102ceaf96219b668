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


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        user = _lend(folder)
        data = str(folder / "data")
        initdb, pg_ctl = program("initdb"), program("pg_ctl")
        assert initdb is not None
        assert pg_ctl is not None
        port = _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c max_connections=64"
        _run([initdb, "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"], user)
        _run([pg_ctl, "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start"], user)
        try:
            yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        finally:
            _run([pg_ctl, "-D", data, "-m", "immediate", "stop"], user)


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
