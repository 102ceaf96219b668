"""`blockforge train` and `blockforge eval`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blockforge.cli import main
from blockforge.locks import KernelLock
from blockforge.train.logs import LOCK
from blockforge.train.result import Evaluation


@pytest.fixture
def given(net: Any, data: Any, tmp_path: Path) -> list[str]:
    """A spec, data and a quick recipe as arguments."""
    (tmp_path / "net.yaml").write_text(json.dumps(net))
    x, y = data.train.images_BCHW.numpy(), data.train.labels_B.numpy()
    np.savez(tmp_path / "x.npz", images=x, labels=y)
    return [str(tmp_path / "net.yaml"), "--data", f"npz:{tmp_path / 'x.npz'}"]


def test_train_then_eval(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--epochs", "2", "--recipe-set", "batch_size=8", "--recipe-set=lr=0.02", "--set", "stages.0.dim=8"]
    assert main(["train", *given, "-o", str(run), *options]) == 0
    shown = capsys.readouterr()
    assert "epoch 2: loss" in shown.err
    assert f"written to {run}" in shown.out
    assert main(["train", *given, "-o", str(run), *options, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert len(trained["history"]) == 2
    confusion = tmp_path / "confusion.csv"
    weights = ["--weights", str(run / "model.safetensors"), "--confusion", str(confusion), "--split=val", "--json"]
    assert main(["eval", str(run / "spec.yaml"), *given[1:], *weights]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["top1"], found["images"]) == (trained["final"], 15)
    rows = [row.split(",") for row in confusion.read_text().splitlines()]
    assert [row[0] for row in rows] == ["true \\ predicted", "0", "1", "2"]
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 15
    assert main(["eval", str(run / "spec.yaml"), *given[1:], *weights[:2]]) == 0
    assert "on 15 images of test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--recipe", "mirco"], 1, "no recipe named 'mirco'"),
        (["--set", "lr=0.1"], 2, "lr is the recipe's: --recipe-set lr=0.1"),
        (["--recipe-set", "drop_path=0.1"], 2, "drop_path is the spec's: --set drop_path=0.1"),
        (["--set", "num_classes=9"], 1, "the spec says num_classes 9"),
        (["--weights", "nowhere.pth"], 1, "no weights at nowhere.pth"),
        (["--recipe-set", "lr=1e30", "--recipe-set", "optimizer=sgd"], 1, "loss became nan"),
    ],
)
def test_mistakes(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    assert main(["train", *given, "-o", str(tmp_path / "run"), *options]) == code
    assert message in capsys.readouterr().err


def test_a_run_without_a_folder_gets_one_that_the_same_command_finds(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.npz").write_bytes((tmp_path / "x.npz").read_bytes())
    for _ in range(2):
        assert main(["train", given[0], "--data", "npz:data.npz", "--epochs", "1"]) == 0
    assert "goes on after" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["net-npz_data.npz-micro-seed0"]


@pytest.mark.slow
def test_two_processes_train_as_one(given: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = "import sys, blockforge.cli as c; sys.exit(c.main(sys.argv[1:]))"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(tmp_path / "program.py")]
    options = ["-o", str(run), "--epochs", "1", "--recipe-set", "batch_size=16", "--set", "stem.norm=none"]
    options += ["--set", "drop_path=0"]  # drawn by each process for itself
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "train", *given, *options], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == done.stderr.count("epoch 1:") == 1
    alone = tmp_path / "alone"
    assert main(["train", *given, "-o", str(alone), *options[2:]]) == 0
    from safetensors.torch import load_file

    two, one = (load_file(folder / "model.safetensors") for folder in (run, alone))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_are_both_refused_a_folder_in_use(given: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "program.py").write_text("import sys, blockforge.cli as c; sys.exit(c.main(sys.argv[1:]))")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(tmp_path / "program.py")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with KernelLock(run / LOCK).held():
        argv = [*command, "train", *given, "-o", str(run), "--epochs", "1"]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 1
    assert f"error: another run works in {run}" in done.stderr
    assert not (run / "run.json").exists()


def test_figures_of_an_evaluation() -> None:
    confusion = torch.tensor([[3, 1], [0, 4]])
    found = Evaluation(87.5, 100.0, 0.3, 8, 2.0, confusion)
    assert found.as_dict()["images_per_second"] == 4.0
    assert found.confusion_csv(("a", "b, c")) == 'true \\ predicted,a,"b, c"\na,3,1\n"b, c",0,4\n'
