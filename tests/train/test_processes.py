"""Trainings of several processes: those that run take half a minute each and are marked slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from stripes import stripes

from blockforge.errors import RunError
from blockforge.search.objectives.scores.train import Train
from blockforge.train import EpochRecord, fit
from blockforge.train.epoch_progress import EnoughError, EpochProgress
from blockforge.train.processes import check_processes, fit_in_processes, launcher

SPEC = {
    "blockforge": 1, "name": "small", "input": {"channels": 1, "size": 8}, "num_classes": 3,
    "defaults": {"norm": "layer_norm"},
    "blocks": {"dw": [{"op": "dwconv", "kernel_size": 3}, {"op": "mlp", "mlp_ratio": 1}]},
    "stem": {"op": "patch_embed", "patch": 2}, "stages": [{"dim": 8, "depth": 1, "layers": "dw"}],
    "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> str:
    return stripes(tmp_path, 120, side=8, apart=2, width=3)


class Seen(EpochProgress):
    def __init__(self, enough: int = 99) -> None:
        super().__init__()
        self.enough, self.epochs = enough, list[EpochRecord]()

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)
        if record.epoch == self.enough:
            raise EnoughError


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_stop_when_told_to(data: str, tmp_path: Path) -> None:
    recipe = {"extends": "micro", "epochs": 3, "batch_size": 16, "save_seconds": 0}
    alone = fit(SPEC, data, recipe, out=tmp_path / "alone")
    with pytest.raises(EnoughError):
        fit_in_processes(SPEC, data, recipe, processes=2, out=tmp_path / "two", progress=Seen(enough=1))
    both = fit_in_processes(SPEC, data, recipe, processes=2, out=tmp_path / "two", progress=(seen := Seen()))
    assert [record.epoch for record in seen.epochs] == [1, 2, 3]
    for key, value in alone.weights.items():
        torch.testing.assert_close(both.weights[key], value, rtol=1e-3, atol=1e-4)
    known = json.loads((tmp_path / "two" / "run.json").read_text())["settings"]
    assert known["processes"] == 2


@pytest.mark.slow
def test_processes_end_with_who_waits_for_them(data: str, tmp_path: Path) -> None:
    program = f"""
from blockforge.train.processes import fit_in_processes
fit_in_processes({SPEC!r}, {data!r}, {{"extends": "micro", "epochs": 100000}}, processes=2,
    out={str(tmp_path / "run")!r})
"""
    (tmp_path / "waits.py").write_text(program)
    waiting = subprocess.Popen([sys.executable, tmp_path / "waits.py"])
    while not (tmp_path / "run" / "log.csv").exists():
        assert waiting.poll() is None
        time.sleep(0.2)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    end = time.monotonic() + 60
    while (left := at_work(tmp_path / "run")) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left


def at_work(folder: Path) -> list[int]:
    """Processes whose command names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def test_the_launcher_takes_a_free_port_and_nothing_from_a_users_settings() -> None:
    command = launcher(3)
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--num_processes") + 1] == "3"
    assert command[command.index("--main_process_port") + 1] == "0"
    assert command[-1] == "--module"


def test_as_many_gpus_as_processes(monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(2)
    with pytest.raises(
        RunError, match=r"4 processes need as many GPUs, and 2 can be seen\n  hint: processes=2, or --gpu"
    ):
        Train(data=data, processes=4)
    with pytest.raises(RunError, match="0 processes train nothing"):
        Train(data=data, processes=0)
