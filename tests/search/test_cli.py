"""`blockforge search`, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.cli import main

TINY = str(Path(__file__).parent.parent / "data" / "search" / "tiny.yaml")


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_search_then_build_the_best_then_go_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["search", TINY, "--budget", "700KFLOPs,60Kparams", "--trials", "6", "--size", "32x48"]) == 0
    shown = capsys.readouterr()
    assert "6 of 6 candidates evaluated within 700K MACs, 60.0K params" in shown.out
    assert "6/6 evaluated" in shown.err
    folder = Path("runs/tiny-700KFLOPs_60Kparams-seed0")
    best = next((folder / "best").glob("rank1_*.yaml"))
    assert bf.compile(best).plan.input.size == [32, 48]
    assert main(["build", str(best)]) == 0
    assert main(["search", "--out", str(folder), "--trials", "8"]) == 0
    assert "8 of 8 candidates evaluated within 700K MACs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--budget", "1KFLOPs"], 1, "the smallest one found costs"),
        (["--budget", "1KFLIPs"], 1, "the unit 'KFLIPs' is not known"),
        (["--set", "stages.7.dim=8"], 1, "stages has no item '7'"),
        (["--sampler", "magic"], 2, "magic"),
        (["--size", "22k"], 2, "'22k' is no image size"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", TINY, *arguments]) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert not Path("runs").exists()


def test_ctrl_c_writes_results_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from blockforge.cli import main; sys.exit(main())"]
    command += ["search", TINY, "--trials", "100000", "--out", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    journal = tmp_path / "run" / "study.journal"
    while not (journal.exists() and journal.read_bytes().count(b'"outcome"') >= 3):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "The search ended early: it was interrupted." in out
    assert "Go on: blockforge search --resume run --trials 100000" in out
    assert "Traceback" not in err
    assert (tmp_path / "run" / "trials.csv").read_text().count("scored") >= 3
