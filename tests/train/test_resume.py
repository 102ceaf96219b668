"""Runs that are killed, interrupted and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from blockforge.cli import main
from blockforge.train import Data, EpochRecord, fit, load_recipe, loop
from blockforge.train.checkpoint import CHECKPOINT
from blockforge.train.epoch_progress import EpochProgress

RECIPE = {"epochs": 3, "batch_size": 64, "lr": 0.01, "ema": 0.9, "save_seconds": 0.0, "flip": 0.5, "mixup": 0.2}
PROGRAM = """
import sys
from blockforge.cli import main
code = main()
assert "torchvision" not in sys.modules  # it must match torch's build, and so must not be needed
sys.exit(code)
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class _PowerError(Exception):
    """The lights go out."""


class _OutAt(EpochProgress):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.at = step

    def step(self, done: int, loss: float, lr: float) -> None:
        if done == self.at:
            raise _PowerError(f"after step {done}")


@pytest.mark.parametrize(("optimizer", "step"), [("adamw", 1), ("adamw", 4), ("adamw", 5), ("adamw", 12), ("sgd", 6)])
def test_a_run_goes_on_as_if_nothing_had_happened(
    net: Any, data: Data, tmp_path: Path, step: int, optimizer: str
) -> None:
    recipe = load_recipe({**RECIPE, "batch_size": 16, "optimizer": optimizer})
    whole = fit(net, data, recipe)
    with pytest.raises(_PowerError, match=f"after step {step}"):
        fit(net, data, recipe, out=tmp_path / "run", progress=_OutAt(step))
    result = fit(net, data, recipe, out=tmp_path / "run")
    assert result.accuracies == whole.accuracies
    assert [r.train_loss for r in result.history] == [r.train_loss for r in whole.history]
    assert all(torch.equal(result.weights[k], v) for k, v in whole.weights.items())


def _command(folder: Path, spec: Path) -> list[str]:
    sets = [f"--recipe-set={key}={value}" for key, value in RECIPE.items()]
    return [
        *(sys.executable, "-c", PROGRAM, "train", str(spec)),
        *("--data", f"npz:{folder.parent / 'data.npz'}", "--out", str(folder), *sets),
    ]  # fmt: skip


@pytest.fixture
def spec(net: Any, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(net), encoding="utf-8")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (1600, 8, 8), dtype=np.uint8), np.arange(1600) % 3
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return file


def _killed(folder: Path, spec: Path) -> int:
    """Exit code of a run that is killed a moment after its first checkpoint."""
    process = subprocess.Popen(_command(folder, spec), stderr=subprocess.DEVNULL, env=ONE_THREAD)
    deadline = time.monotonic() + 60
    while not (folder / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    process.kill()
    return process.wait(60)


def test_kill_9_and_a_rerun_end_with_the_same_bits(net: Any, spec: Path, tmp_path: Path) -> None:
    whole = fit(spec, f"npz:{tmp_path / 'data.npz'}", load_recipe("micro", RECIPE))
    folder = tmp_path / "run"
    assert _killed(folder, spec) == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    (folder / f".{CHECKPOINT}.abc.tmp").write_bytes(b"half a checkpoint")
    done = subprocess.run(_command(folder, spec), capture_output=True, text=True, check=True, env=ONE_THREAD)
    assert "goes on after" in done.stderr
    assert "top-1" in done.stdout
    found = load_file(folder / "model.safetensors")
    assert found.keys() == whole.weights.keys()
    assert all(torch.equal(found[k], v) for k, v in whole.weights.items())
    assert not list(folder.glob("*.tmp")) + list(folder.glob(".*.tmp"))


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Step -> signal that the process gets in it, once."""
    steps: dict[int, int] = {}
    real = loop.Trainer._step

    def step(self: loop.Trainer, *batch: torch.Tensor) -> torch.Tensor:
        if self.position.step in steps:
            signal.raise_signal(steps.pop(self.position.step))
        return real(self, *batch)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    return steps


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_signal_ends_a_run_between_two_steps(
    net: Any, data: Data, fast: Any, tmp_path: Path, signalled: dict[int, int], at: int
) -> None:
    whole = fit(net, data, fast)
    handler = signal.getsignal(signal.SIGTERM)
    signalled[at] = signal.SIGTERM
    stopped = fit(net, data, fast, out=tmp_path / "run")
    assert stopped.signal == signal.SIGTERM
    assert len(stopped.history) == (at + 1) // 4
    assert signal.getsignal(signal.SIGTERM) is handler
    result = fit(net, data, fast, out=tmp_path / "run")
    assert result.signal is None
    assert all(torch.equal(result.weights[k], v) for k, v in whole.weights.items())


def test_ctrl_c_saves_and_exits_130(
    spec: Path, tmp_path: Path, signalled: dict[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    signalled[22] = signal.SIGINT
    arguments = _command(folder, spec)[3:]
    assert main([*arguments, "--recipe-set", "save_seconds=1000"]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert (folder / CHECKPOINT).exists()
    assert not (folder / "model.safetensors").exists()
    assert main([*arguments, "--recipe-set", "save_seconds=1000"]) == 0
    assert "goes on after step 23 of 42 (1 epochs done)" in capsys.readouterr().err


def test_the_log_of_a_resumed_run_has_every_epoch_once(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    class OutAfterEpoch(EpochProgress):
        def epoch(self, record: EpochRecord) -> None:
            raise _PowerError("after an epoch")

    with pytest.raises(_PowerError, match="after an epoch"):  # the log is written, the checkpoint is not
        fit(net, data, fast, out=tmp_path / "run", progress=OutAfterEpoch())
    fit(net, data, fast, out=tmp_path / "run")
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
