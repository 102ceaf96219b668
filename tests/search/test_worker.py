"""Workers in processes of their own: nothing is lost, nothing done twice, one that dies is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from blockforge.blocks import registry
from blockforge.cli import main
from blockforge.search import SearchError, open_result, search
from blockforge.search.study.records import EVALUATED
from blockforge.search.workers.worker import main as launched
from blockforge.search.workers.worker import work
from blockforge.spec import Spec

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that workers can import: they find this folder as they find one's own."""
    (tmp_path / "mine.py").write_text(
        "import os, time\n"
        "def slow(arch):\n    time.sleep(0.3)\n    return float(arch.depth)\n"
        "def deadly(arch):\n"
        "    if arch.depth == 2:\n        os.kill(os.getpid(), 11)\n"
        "    return float(arch.depth)\n"
        "def short(arch):\n"
        "    if arch.depth == 2:\n        raise MemoryError('out of memory')\n"
        "    if arch.depth == 3:\n        raise OSError(28, 'No space left on device')\n"
        "    return float('nan') if arch.depth == 4 else float(arch.depth)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)


def checked(folder: Path, trials: int, more: int = 0) -> Counter[str]:
    """Every trial has an end, no network is evaluated twice, and there are as many as wanted."""
    result = open_result(folder)
    done = [t.hash for t in result.trials if t.state in EVALUATED]
    assert len(done) == len(set(done))
    assert trials <= len(done) <= trials + more
    retried = {t.retry_of for t in result.trials}
    assert all(t.number in retried for t in result.trials if t.state == "interrupted")
    assert not result.counts["running"]
    assert [t.number for t in result.trials] == list(range(len(result.trials)))
    return result.counts


def test_workers_that_are_killed_are_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 100
        while len(killed) < 2 and time.monotonic() < end:
            pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            alive = [int(p) for p in pids if b"search.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
            journal = run / "study.journal"
            if alive and journal.exists() and journal.read_bytes().count(b'"outcome"') > 3 * len(killed):
                os.kill(alive[0], signal.SIGKILL)
                killed.append(alive[0])
            time.sleep(0.1)

    thread = threading.Thread(target=kill)
    thread.start()
    result = search(TINY, trials=12, workers=2, out=run, objective="mine:slow", sampler="random")
    thread.join()
    assert len(killed) == 2
    assert result.stopped is None
    checked(run, 12, more=1)
    died = [t for t in result.trials if t.state == "interrupted"]
    assert all("its process was killed by SIGKILL" in t.reason for t in died)


@pytest.mark.slow  # eleven processes
def test_a_candidate_that_kills_its_worker_ends_as_failed_with_a_trace(few: Spec, tmp_path: Path) -> None:
    result = search(few, trials=6, workers=2, out=tmp_path / "run", objective="mine:deadly", sampler="random")
    assert result.stopped in (None, "every candidate of the space was proposed")
    counts = checked(tmp_path / "run", 6)
    assert (counts["failed"], counts["scored"], counts["interrupted"]) == (3, 3, 6)
    failed = [t for t in result.trials if t.state == "failed"]
    assert all(t.reason == "its process was killed by SIGSEGV (attempt 3)" for t in failed)
    assert all("Segmentation fault" in t.trace and "mine.py" in t.trace for t in failed)


def test_memory_disk_and_nan_of_one_trial_stop_no_other(tmp_path: Path) -> None:
    result = search(TINY, trials=14, workers=2, out=tmp_path / "run", objective="mine:short", sampler="random")
    checked(tmp_path / "run", 14, more=1)
    reasons = {t.depth: t.reason for t in result.trials if t.state == "failed"}
    assert set(reasons) <= {2, 3, 4}
    assert reasons[3] == "OSError: [Errno 28] No space left on device"
    assert reasons[4] == "ScoreError: the score is nan"
    assert result.counts["scored"]


def test_another_process_joins_by_the_name_of_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from blockforge.cli import main; sys.exit(main())"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["search", str(TINY), "--trials", "12", "--out", "run", "--objective", "mine:slow"]
    first = subprocess.Popen([*command, *arguments], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "study.journal").exists() or b"outcome" not in Path("run/study.journal").read_bytes():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    assert main(["worker", "--storage", "run"]) == 0
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert "candidates evaluated" in out
    result = open_result("run")
    checked(tmp_path / "run", 12, more=1)
    assert len({t.worker for t in result.trials}) == 2


def test_mistakes_are_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SearchError, match="several workers need a study that all of them see"):
        search(TINY, trials=2, workers=2)

    def local(arch) -> float:
        return 0.0

    with pytest.raises(SearchError, match=r"workers cannot import the objective .*local\n.*at the top of a module"):
        search(TINY, trials=2, workers=2, out=tmp_path / "run", objective=local)
    assert not (tmp_path / "run").exists()
    assert main(["worker", "--storage", "nowhere"]) == 1
    assert "cannot be opened" in capsys.readouterr().err or not Path("nowhere").exists()
    search(TINY, trials=1, out=tmp_path / "run", objective="depth")
    assert main(["worker", "--storage", "run", "--study", "other"]) == 1
    assert "there is no study named 'other'" in capsys.readouterr().err
    for garbage in ([], ["{"], ["3"], ["[]"], ["{}"], ['{"storage": "run", "colour": 3}']):
        assert launched(garbage) == 1
        assert "error: a worker takes its arguments as one JSON object: " in capsys.readouterr().err


def test_an_objective_that_breaks_in_workers_alone_ends_the_search(tmp_path: Path) -> None:
    code = f"import os\nif os.getpid() != {os.getpid()}:\n    raise ImportError('no such library')\n"
    (tmp_path / "broken.py").write_text(code + "def score(arch):\n    return 1.0\n")
    with pytest.raises(SearchError, match="broken:score cannot be imported: no such library"):
        search(TINY, trials=2, workers=2, out=tmp_path / "run", objective="broken:score")


def test_workers_get_the_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    (tmp_path / "w_plug.py").write_text(
        "from blockforge.blocks.mixers.dwconv import DepthwiseConv\n"
        "from blockforge.blocks.registry import mixer\n"
        "@mixer('plugged_conv')\n"
        "class Plugged(DepthwiseConv):\n    'Another name.'\n"
    )
    (tmp_path / "space.yaml").write_text(TINY.read_text().replace("op: dwconv", "op: plugged_conv"))
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    registry.load_plugin("w_plug.py")
    found = search("space.yaml", trials=2, objective="depth", workers=2, out=run)
    assert found.evaluated >= 2
    assert not found.counts["invalid"]

    registry.BLOCKS.things.pop("plugged_conv")
    with pytest.raises(SearchError, match=r"uses blocks of w_plug.py\n  hint: blockforge ... --plugin w_plug.py"):
        work(str(run))
    assert open_result(run).evaluated == found.evaluated
