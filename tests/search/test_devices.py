"""Workers are dealt the GPUs that a search sees."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.errors import SearchError
from blockforge.search.workers.devices import check_share, dealt, ray_share, visible_gpus

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("0,1", ["0", "1"]), ("3", ["3"]), (" 2, 0 ", ["2", "0"]), ("GPU-a1,MIG-b2", ["GPU-a1", "MIG-b2"]), ("", []),
     ("-1", []), ("0,-1,1", ["0"]), ("NoDevFiles", ["NoDevFiles"])],
)  # fmt: skip
def test_what_the_environment_names_is_seen(named: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == gpus


@pytest.mark.parametrize(
    ("workers", "gpus", "each", "expected"),
    [
        (2, "01", None, ["0", "1"]),
        (3, "01", None, ["0", "1", "0"]),
        (2, "", None, [None, None]),
        (1, "01", None, ["0"]),
        (4, "57", 0.5, ["5", "5", "7", "7"]),
        (3, "5", 0.33, ["5", "5", "5"]),
        (2, "0123", 2, ["0,1", "2,3"]),
        (2, "0123", 1.0, ["0", "1"]),
    ],
)
def test_dealing(workers: int, gpus: str, each: float | None, expected: list[str | None]) -> None:
    assert dealt(workers, list(gpus), each) == expected


@pytest.mark.parametrize(
    ("workers", "gpus", "each", "message"),
    [
        (5, "01", 0.5, "5 workers with 0.5 GPUs each need 2.5; 2 can be seen here\n  hint: --workers 4"),
        (2, "01", 2, "2 workers with 2 GPUs each need 4; 2 can be seen here\n  hint: --workers 1"),
        (1, "", 1, "1 workers with 1 GPUs each need 1; 0 can be seen here\n  hint: a machine with GPUs"),
        (1, "01", 1.5, "1.5 GPUs a worker cannot be dealt\n  hint: 1, 2, ... GPUs, or 0.5, 0.25, ... of one"),
        (1, "01", 0.7, "0.7 GPUs a worker cannot be dealt"),
    ],
)
def test_too_few_are_told(workers: int, gpus: str, each: float, message: str) -> None:
    with pytest.raises(SearchError) as e:
        dealt(workers, list(gpus), each)
    assert str(e.value).startswith(message)


def test_shares_of_a_ray_cluster() -> None:
    assert [ray_share(4, gpus, None) for gpus in (8, 4, 2, 1, 0)] == [1, 1, 0.5, 0.25, 0]
    assert ray_share(4, 2, 0.5) == 0.5
    with pytest.raises(SearchError, match="4 workers with 1 GPUs each need 4; the Ray cluster has 2"):
        ray_share(4, 2, 1)
    check_share(None)


def score(arch: object) -> float:
    """The GPU that this worker sees; slowly, so that all workers take part."""
    time.sleep(0.3)
    return float(os.environ["CUDA_VISIBLE_DEVICES"])


def test_each_worker_has_its_own_and_too_few_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    command = ["search", str(TINY), "--trials", "6", "--workers", "2", "--objective", f"{__file__}:score"]
    assert main([*command, "--gpus-per-worker", "2", "--out", str(tmp_path / "few")]) == 1
    assert "2 workers with 2 GPUs each need 4; 2 can be seen here" in capsys.readouterr().err
    assert main([*command, "--gpus-per-worker", "0.3", "--out", str(tmp_path / "odd")]) == 1
    assert "0.3 GPUs a worker cannot be dealt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    rows = (tmp_path / "run" / "trials.csv").read_text().splitlines()
    assert {"3.0", "5.0"} <= {cell for row in rows[1:] for cell in row.split(",")}
