"""The study on disk: torn journals, locks, the identity of a study, and trials that a dead process left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blockforge.locks import KernelLock
from blockforge.search import SearchError, search
from blockforge.search.study import patience
from blockforge.search.study.journal import JOURNAL, labelled, mend_end, working_in
from blockforge.search.study.records import MAX_RETRIES
from blockforge.spec import Spec, to_yaml

LINE = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}}


def depth(arch) -> float:
    return float(arch.depth) + arch.params / 1e9


@pytest.mark.parametrize("tail", [b'{"op_code":4,"wor', b"\0" * 100_000, b""])
def test_torn_tail_is_cut_back_to_the_last_newline(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / JOURNAL
    whole = labelled(LINE, 0)
    whole += labelled(LINE, len(whole))
    path.write_bytes(whole + tail)
    assert mend_end(path) == len(tail)
    assert path.read_bytes() == whole
    assert (not tail and not (tmp_path / f"{JOURNAL}.cut").exists()) or tail in (
        tmp_path / f"{JOURNAL}.cut"
    ).read_bytes()
    path.write_bytes(tail)
    mend_end(path)
    assert path.read_bytes() == b""


def test_a_torn_study_goes_on(few: Spec, tmp_path: Path) -> None:
    search(few, trials=2, objective=depth, out=tmp_path)
    with open(tmp_path / JOURNAL, "ab") as journal:
        journal.write(b'{"op_code":5,"worker_id":"x","trial')
    result = search(few, trials=4, objective=depth, out=tmp_path)
    assert result.evaluated == 4
    assert all(line.endswith("}") for line in (tmp_path / JOURNAL).read_text().splitlines())


def test_a_folder_belongs_to_one_search_at_a_time(few: Spec, tmp_path: Path) -> None:
    with working_in(tmp_path), pytest.raises(SearchError, match="another search is running in"):
        search(few, trials=1, objective=depth, out=tmp_path)
    assert search(few, trials=1, objective=depth, out=tmp_path).evaluated == 1


def test_a_folder_that_cannot_be_made_is_an_error(few: Spec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match=r"cannot write in .*file"):
        search(few, trials=1, objective=depth, out=tmp_path / "file")


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom blockforge.locks import KernelLock\n"
        "KernelLock(Path(sys.argv[1])).acquire()\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False, timeout=60)
    assert done.returncode == -9
    lock = KernelLock(tmp_path / "lock")
    assert lock.acquire(wait=False)
    assert not KernelLock(tmp_path / "lock").acquire(wait=False)
    lock.release()
    assert KernelLock(tmp_path / "lock").acquire(wait=False)


def test_another_search_in_the_folder_is_refused_by_name(few: Spec, tiny: Spec, tmp_path: Path) -> None:
    search(few, budget="1MFLOPs", trials=1, objective=depth, out=tmp_path)
    with pytest.raises(SearchError, match="budget: the study has 1000000 macs, this run 2000000 macs"):
        search(few, budget="2MFLOPs", trials=2, objective=depth, out=tmp_path)
    with pytest.raises(SearchError, match="seed: the study has 0, this run 1"):
        search(few, trials=2, objective=depth, out=tmp_path, seed=1)
    with pytest.raises(SearchError, match=r"objective: the study has .*:depth, this run expressivity"):
        search(few, trials=2, objective="expressivity", out=tmp_path)
    text = r"space: the study has tiny \(.*\), this run tiny \(.*\)\n +they differ at blocks.dw\[0\].kernel_size"
    with pytest.raises(SearchError, match=text):
        search(tiny, trials=2, objective=depth, out=tmp_path)


def test_what_is_not_given_is_taken_from_the_study(few: Spec, tmp_path: Path) -> None:
    first = search(few, budget="1MFLOPs", seed=3, trials=2, objective=depth, out=tmp_path)
    again = search(trials=3, objective=depth, out=tmp_path)
    assert again.budget == first.budget
    assert again.space.tree == first.space.tree
    assert [t.hash for t in again.trials][: len(first.trials)] == [t.hash for t in first.trials]
    assert again.evaluated == 3


def test_a_full_disk_is_an_error_and_loses_nothing(few: Spec, tmp_path: Path, monkeypatch, capsys) -> None:
    from blockforge.search.study.journal import Journal

    written = Journal.append_logs

    def full(self: Journal, logs: list[dict]) -> None:
        if journal.exists() and journal.stat().st_size > 4000:
            raise OSError(28, "No space left on device")
        written(self, logs)

    journal = tmp_path / JOURNAL
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append_logs", full)
        patch.setattr(patience, "FILE", 1.0)
        with pytest.raises(SearchError, match=r"No space left on device\n.*the same command goes on"):
            search(few, trials=6, objective=depth, out=tmp_path)
    assert "No space left on device); trying again for 1 s" in capsys.readouterr().err
    finished = journal.read_text().count('"outcome"')
    assert finished > 0
    assert search(few, trials=6, objective=depth, out=tmp_path).counts["scored"] == 6


def test_a_file_that_is_no_journal_is_an_error(few: Spec, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("not a journal\nat all\n")
    with pytest.raises(SearchError, match="is not a study that can be read"):
        search(few, trials=1, objective=depth, out=tmp_path)


def _die_evaluating(folder: Path, space: Spec, again: bool) -> None:
    """Leave a trial as a process does that dies during its evaluation."""
    code = """
import os, sys
from blockforge.search import search
LINE = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}}


def depth(arch):
    os.kill(os.getpid(), 9)
depth.__module__ = sys.argv[2]
search(sys.argv[1] if sys.argv[3] == "new" else None, trials=1, objective=depth, out=sys.argv[1].rpartition("/")[0])
"""
    (folder / "few.yaml").write_text(to_yaml(space, header=False))
    arguments = [str(folder / "few.yaml"), depth.__module__, "again" if again else "new"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60)
    assert done.returncode == -9


def test_a_candidate_is_tried_again_twice_then_kept_as_failed(few: Spec, tmp_path: Path) -> None:
    for attempt in range(MAX_RETRIES + 1):
        _die_evaluating(tmp_path, few, again=attempt > 0)
    result = search(trials=2, objective=depth, out=tmp_path)
    first, second, third, after = result.trials
    assert [t.state for t in result.trials] == ["interrupted"] * MAX_RETRIES + ["failed", "scored"]
    assert [first.retry_of, second.retry_of, third.retry_of] == [None, 0, 1]
    assert first.holes == second.holes == third.holes != after.holes
    assert third.reason == "its process died (attempt 3)"
