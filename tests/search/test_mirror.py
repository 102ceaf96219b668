"""Trainings kept in shared storage: they go on on another machine, which another folder stands for here."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.errors import SearchError
from blockforge.search.objectives.trial import ObjectiveTrial
from blockforge.search.workers.mirror import Mirror
from blockforge.spec import Spec

pytest.importorskip("fsspec")


def test_a_folder_goes_on_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "a" / "run", tmp_path / "b" / "run"
    mirror = Mirror(f"file://{tmp_path}/shared")
    with mirror.kept(here, "one"):
        (here / "deep").mkdir(parents=True)
        (here / "deep" / "checkpoint").write_text("1")
        (here / "run.lock").write_text("")
    shutil.rmtree(here.parent)
    with mirror.kept(there, "one"):
        assert (there / "deep" / "checkpoint").read_text() == "1"
        assert not (there / "run.lock").exists()
        (there / "deep" / "checkpoint").write_text("2")
    with mirror.kept(here, "one") as kept:
        assert (here / "deep" / "checkpoint").read_text() == "2"
        (here / "deep" / "checkpoint").write_text("3")
        kept.finished = True
    assert (here / "deep" / "checkpoint").read_text() == "3"  # what is here stays
    assert not list((tmp_path / "shared").rglob("*"))


def test_what_is_here_stays_where_the_copy_is_older(tmp_path: Path) -> None:
    """Also a copy that was cut off: its version is written last."""
    mirror, here = Mirror(f"file://{tmp_path}/shared"), tmp_path / "run"
    with mirror.kept(here, "one"):
        here.mkdir()
        (here / "a").write_text("1")
    (here / "a").write_text("2")
    (tmp_path / "shared" / "one" / "a").write_text("torn")
    (tmp_path / "shared" / "one" / "b.part").write_text("half")
    with mirror.kept(here, "one"):
        assert (here / "a").read_text() == "2"
    with mirror.kept(tmp_path / "other", "one"):
        assert (tmp_path / "other" / "a").read_text() == "2"
        assert not (tmp_path / "other" / "b.part").exists()


def test_it_is_copied_on_the_way(tmp_path: Path) -> None:
    """What kill -9 leaves in the storage is the last look's."""
    mirror, here = Mirror("memory://runs", every=0.01), tmp_path / "run"
    here.mkdir()
    with mirror.kept(here, "one") as kept:
        (here / "a").write_text("1")
        for _ in range(500):
            if kept.known:
                break
            time.sleep(0.01)
        assert mirror.files.cat_file("/runs/one/a") == b"1"


def test_a_search_goes_on_in_another_folder(tiny: Spec, tmp_path: Path) -> None:
    begun: list[list[str]] = []

    def score(arch: bf.Architecture, trial: ObjectiveTrial) -> float:
        begun.append(sorted(file.name for file in trial.folder.iterdir() if file.name == "checkpoint"))
        (trial.folder / "checkpoint").write_text("1")
        if len(begun) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time_to_stop()
        trial.done()
        return float(arch.params)

    settings: dict[str, Any] = {
        "objective": score, "trials": 2, "sampler": "random", "storage": f"sqlite:///{tmp_path / 'a.db'}", "study": "a",
        "checkpoints": f"file://{tmp_path}/shared",
    }  # fmt: skip
    stopped = bf.search(tiny, out=tmp_path / "first", **settings)  # type: ignore[operator]
    assert stopped.signal == signal.SIGINT
    shutil.rmtree(tmp_path / "first")
    whole = bf.search(tiny, out=tmp_path / "second", **settings)  # type: ignore[operator]
    assert whole.evaluated == 2
    assert begun == [[], ["checkpoint"], []]
    assert not [file for file in (tmp_path / "shared").rglob("*") if file.is_file()]


def time_to_stop() -> None:
    for _ in range(1000):
        sum(range(1000))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("runs/a", "'runs/a' is no URL\n  hint: --checkpoints s3://bucket/runs"),
        ("nosuch://a", "checkpoints cannot be kept in nosuch://a: ValueError: Protocol not known"),
        ("file:///proc/nothing/here", "checkpoints cannot be kept in file:///proc/nothing/here: "),
    ],
)
def test_a_place_that_is_none_is_told_before_anything_is_written(
    tiny: Spec, tmp_path: Path, url: str, told: str
) -> None:
    with pytest.raises(SearchError) as error:
        bf.search(tiny, objective="params", trials=1, checkpoints=url, out=tmp_path / "run")  # type: ignore[operator]
    assert str(error.value).startswith(told)
    assert not (tmp_path / "run").exists()


def test_the_study_itself_is_in_a_folder(tiny: Spec) -> None:
    with pytest.raises(
        SearchError, match=r"--out is a folder of this machine, not s3://b/a\n  hint: --out DIR --check"
    ):
        bf.search(tiny, objective="params", trials=1, out="s3://b/a")  # type: ignore[operator]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockforge.extras.find_spec", lambda name: None)
    with pytest.raises(bf.BlockforgeError, match=r"needs fsspec\n  hint: pip install 'blockforge\[shared\]'"):
        Mirror("s3://bucket/runs")


def test_a_storage_that_fails_ends_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror, here = Mirror(f"file://{tmp_path}/shared"), tmp_path / "run"
    shutil.rmtree(tmp_path / "shared")
    (tmp_path / "shared").write_text("a file now")
    with mirror.kept(here, "one"):
        here.mkdir()
        (here / "a").write_text("1")
    assert capsys.readouterr().err.count("the folder run could not be copied to") == 1
