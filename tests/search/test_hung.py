"""Workers that are stopped, hang, or whose parent is gone: real processes, bounded waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blockforge.search import SearchResult, search
from blockforge.search.study.lease import Clock, Watch
from blockforge.units import parse_duration

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text(
        "import ctypes, os, signal, time\nfrom pathlib import Path\n"
        "def slow(arch):\n    time.sleep(0.3)\n    return float(arch.depth)\n"
        "def once(arch, how='python'):\n"
        "    try:\n        Path('hung').touch(exist_ok=False)\n"
        "    except FileExistsError:\n        return float(arch.depth)\n"
        "    if how == 'stopped':\n        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    while how == 'swallows':\n"
        "        try:\n            time.sleep(3600)\n        except BaseException:\n            pass\n"
        "    while how == 'python':\n        time.sleep(0.05)\n"
        "    ctypes.PyDLL(None).sleep(3600)\n"  # holds the interpreter's lock
    )
    monkeypatch.chdir(tmp_path)


def waited(what: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def in_time(seconds: float, **settings: object) -> SearchResult:
    """A search that must end; the test fails where it does not."""
    found: list[SearchResult] = []
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        found.append(search(TINY, trials=4, out="run", sampler="random", **settings))  # type: ignore[arg-type]
    finally:
        timer.cancel()
    assert found[0].stopped is None
    return found[0]


@pytest.mark.parametrize("how", ["stopped", "in C"])
def test_a_silent_worker_on_this_machine_is_replaced(how: str) -> None:
    found = in_time(180, workers=2, lease=3.0, objective=f"hanging.py:once:how={how}")
    assert found.counts["scored"] >= 4
    (first,) = (t for t in found.trials if t.state == "interrupted")
    assert "it gave no sign of life for 3 s (attempt 1)" in first.reason
    assert any(t.retry_of == first.number and t.state == "scored" for t in found.trials)


@pytest.mark.parametrize("how", ["python", "swallows"])
def test_an_evaluation_that_takes_too_long_is_kept_as_failed(how: str) -> None:
    found = in_time(180, objective=f"hanging.py:once:how={how}", trial_timeout="1s")
    (failed,) = (t for t in found.trials if t.state == "failed")
    assert failed.reason == "it took longer than --trial-timeout 1s"
    assert "hanging.py" in failed.trace
    assert found.counts["scored"] == 3


def test_a_time_limit_holds_in_this_process_too() -> None:
    def endless(arch) -> float:
        while True:
            time.sleep(0.01)

    found = search(TINY, trials=1, objective=endless, trial_timeout=0.5, sampler="random")
    assert [t.state for t in found.trials if t.state == "failed"] == ["failed"]


def test_workers_end_with_their_parent() -> None:
    command = [
        "search",
        str(TINY),
        "--trials",
        "500",
        "--workers",
        "2",
        "--out",
        "run",
        "--objective",
        "hanging.py:slow",
    ]
    code = "import sys; from blockforge.cli import main; sys.exit(main())"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    journal = Path("run/study.journal")
    try:
        waited(lambda: journal.exists() and journal.read_bytes().count(b'"outcome"') > 2)
        workers = [int(pid) for pid in children.read_text().split()]
        assert len(workers) == 2
    finally:
        parent.kill()
        parent.wait()
    waited(lambda: not any(_runs(pid) for pid in workers), 60)
    found = search(trials=3, out="run")  # and nothing holds the study
    assert not found.counts["running"]


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return b"search.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() and stat.read_text().split()[2] != "Z"
    except OSError:
        return False


def test_who_was_away_says_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    study = optuna.create_study()
    study.set_user_attr("worker:far", {"beats": 1, "machine": "another", "pid": 1, "began": "1"})
    clock = Clock(5.0)
    watch = Watch(study, 60.0, lambda: clock.steady)
    assert not watch.silent({"far"})
    now[0] += 500  # a database that was restarted, a laptop that slept
    clock.tick()
    assert not watch.silent({"far"})
    for _ in range(16):
        now[0] += 4
        clock.tick()
    assert watch.silent({"far"}) == {"far"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5min", 300), ("2h", 7200), ("1.5 h", 5400), (3, 3), ("7", 7)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0", "-1s", "soon", "", "5 parsecs", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no length of time\n  hint: write 90s"):
        search(TINY, trials=1, objective="depth", trial_timeout=text)
