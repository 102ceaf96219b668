"""The installed program, as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("blockforge")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="blockforge is not installed beside this python")


def _run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != "COLUMNS"}  # test runners set it
    return subprocess.run([str(PROGRAM), *argv], capture_output=True, text=True, timeout=120, env={**inherited, **env})


def test_help_imports_nothing_heavy() -> None:
    done = _run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "Commands:" in done.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in imported
    assert imported.isdisjoint({"torch", "optuna", "triton", "matplotlib", "numpy", "pydantic", "networkx", "rich"})


def test_exit_codes() -> None:
    assert _run("--version").returncode == 0
    assert _run("check", "nosuch").returncode == 1
    assert _run("nosuch").returncode == 2


def test_output_is_plain_and_wide_without_a_terminal() -> None:
    done = _run("show", "smt_t", TERM="xterm")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert 80 < max(map(len, done.stdout.splitlines())) <= 120


def test_output_survives_a_terminal_without_unicode() -> None:
    done = _run("show", "smt_t", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "11.5M params" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("command", ["show smt_b", "schema", "show smt_b --json"])
def test_a_closed_pipe_is_quiet(command: str) -> None:
    line = f"{PROGRAM} {command} | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_is_one_line() -> None:
    with subprocess.Popen(
        [str(PROGRAM), "bench", "compile", "--runs", "10000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        time.sleep(4)
        program.send_signal(signal.SIGINT)
        try:
            out, err = program.communicate(timeout=60)
        finally:
            program.kill()
    assert (program.returncode, out, err) == (130, "", "interrupted\n")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "blockforge", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "blockforge"), done.stderr
