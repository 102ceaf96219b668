"""The folder of a run: one run at a time, of one identity, that goes on wherever it and its data lie."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.locks import KernelLock
from blockforge.train import Data, RunError, fit, loop
from blockforge.train.checkpoint import CHECKPOINT
from blockforge.train.epoch_progress import EpochProgress
from blockforge.train.logs import LOCK, RUN
from blockforge.train.optim import lr_factor
from blockforge.train.recipe import load_recipe
from blockforge.train.tensor_split import TensorSplit


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


class _Meanwhile(EpochProgress):
    """Does something after the first step of a run."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do = do

    def step(self, done: int, loss: float, lr: float) -> None:
        if done == 1:
            self.do()


@pytest.mark.parametrize("changes", [{}, {"lr": 0.02}, {"epochs": 3}])
def test_two_runs_never_share_a_folder(
    net: Any, data: Data, fast: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = tmp_path / "run"

    def second() -> None:
        before = _files(run)
        with pytest.raises(RunError, match=r"^another run works in .*run\n  hint: wait for it, or give another --out$"):
            fit(net, data, {**fast, **changes}, out=run)
        assert _files(run) == before

    assert not (run / CHECKPOINT).exists()
    fit(net, data, fast, out=run, progress=_Meanwhile(second))
    fit(net, data, fast, out=run)  # free again


def test_another_process_is_refused_and_a_dead_one_is_not_waited_for(
    net: Any, data: Data, fast: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    program = (
        "import sys, os, time\nfrom pathlib import Path\nfrom blockforge.locks import KernelLock\n"
        "lock = KernelLock(Path(sys.argv[1]))\nlock.acquire()\n"
        "if os.fork() == 0: os.close(1); time.sleep(30); os._exit(0)\nprint('held', flush=True)\ntime.sleep(30)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run / LOCK)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another run works in"):
            fit(net, data, fast, out=run)
        holder.kill()
    fit(net, data, fast, out=run)  # though the dead process's child, as a data loader's, lives on


def test_a_lock_that_is_let_go_is_free_for_a_forked_holder_too(tmp_path: Path) -> None:
    lock, other = KernelLock(tmp_path / "lock"), KernelLock(tmp_path / "lock")
    assert lock.acquire(wait=False)
    assert not other.acquire(wait=False)
    lock.release()
    assert other.acquire(wait=False)


def test_the_identity_is_written_before_the_first_step(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    run, seen = tmp_path / "run", []
    reporter = _Meanwhile(lambda: seen.append(json.loads((run / RUN).read_text())["settings"]))
    fit(net, data, fast, out=run, progress=reporter)
    assert seen[0]["data"]["train_images"] == 72
    assert seen[0]["data"]["classes"] == ["a", "b", "c"]
    assert {"network", "seed", "weights", "plugins", "processes", "recipe", "versions"} < seen[0].keys()


def _other_labels(data: Data) -> Data:
    assert isinstance(data.train, TensorSplit)
    return Data("x", data.classes, TensorSplit(data.train.images_BCHW, data.train.labels_B.flip(0)), data.val)


OTHERS: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {
    "recipe": (lambda d, t: {"recipe_overrides": {"lr": 0.5}}, "recipe.lr: 0.01 there, 0.5 here"),
    "overrides": (lambda d, t: {"overrides": {"stages.0.dim": 8}}, r"network: \w+ there, \w+ here"),
    "seed": (lambda d, t: {"seed": 3}, "seed: 0 there, 3 here"),
    "data": (lambda d, t: {"data": _other_labels(d)}, r"data.train_digest: \w+ there, \w+ here"),
    "classes": (
        lambda d, t: {"data": Data("stripes", ("a", "b", "d"), d.train, d.val)},
        r"data.classes: \['a', 'b', 'c'\] there, \['a', 'b', 'd'\] here",
    ),
    "weights": (lambda d, t: {"weights": t / "w" / "model.safetensors"}, r"weights\.digest: None there, \w+ here"),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("at", ["before its first checkpoint", "finished"])
def test_everything_that_a_result_depends_on_is_compared(
    net: Any, data: Data, fast: Any, tmp_path: Path, what: str, at: str
) -> None:
    run = tmp_path / "run"
    bf.save_model(bf.build(net, num_classes=3, seed=9), tmp_path / "w")
    given, message = OTHERS[what]
    fit(net, data, fast, out=run)
    if at != "finished":
        for file in run.iterdir():
            if file.name != RUN and file.is_file():
                file.unlink()
    before = _files(run)
    arguments = {"data": data, **given(data, tmp_path)}
    with pytest.raises(RunError, match=rf"(?s)run holds another run:\n.*{message}.*\n  hint: .*another --out"):
        fit(net, recipe=fast, out=run, **arguments)
    after = _files(run)
    after.pop(LOCK, None)
    before.pop(LOCK, None)
    assert after == before


def test_what_changes_no_result_is_not_compared(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    fit(net, data, fast, out=tmp_path / "run")
    fit(net, data, {**fast, "workers": 3, "save_seconds": 5.0, "about": "again"}, out=tmp_path / "run")


def test_other_versions_are_said(
    net: Any, data: Data, fast: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(net, data, fast, out=tmp_path / "run")
    file = tmp_path / "run" / RUN
    file.write_text(file.read_text().replace(torch.__version__, "1.0"))
    fit(net, data, fast, out=tmp_path / "run")
    assert f"note: the run was begun with torch 1.0 and goes on with {torch.__version__}" in capsys.readouterr().err


def test_a_plugin_that_changed_is_another_run(data: Data, fast: Any, net: Any, tmp_path: Path) -> None:
    from blockforge.blocks.registry import load_plugin

    file = tmp_path / "folder_plugin.py"
    source = (
        "import blockforge.blocks.defined as m\nfrom blockforge.blocks.registry import ffn\n\n\n"
        '@ffn(\'folder_mlp\')\nclass FolderMlp(m.Mlp):\n    """Ours."""\n'
    )
    file.write_text(source)
    load_plugin(file)
    own = {**net, "blocks": {"conv": [{"op": "dwconv", "kernel_size": 3}, {"op": "folder_mlp", "mlp_ratio": 2}]}}
    fit(own, data, fast, out=tmp_path / "run")
    file.write_text(source + "\n# another\n")
    with pytest.raises(RunError, match=r"plugins\.folder_plugin\.py: \w+ there, \w+ here"):
        fit(own, data, fast, out=tmp_path / "run")
    fit(net, data, fast, out=tmp_path / "other")  # whose blocks are ours


def test_an_unreadable_run_file(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN).write_text("[]")
    with pytest.raises(RunError, match=r"run\.json cannot be read: .*\n  hint: give another --out"):
        fit(net, data, fast, out=tmp_path / "run")


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("stopped_at", [4, 8])
def test_more_epochs_go_on(
    net: Any, data: Data, fast: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str, stopped_at: int
) -> None:
    recipe = {**fast, "schedule": schedule}

    class Off(EpochProgress):
        def step(self, done: int, loss: float, lr: float) -> None:
            if done > stopped_at:
                raise KeyboardInterrupt

    first = None if stopped_at == 8 else Off()
    try:
        fit(net, data, {**recipe, "save_seconds": 0.0}, epochs=2, out=tmp_path / "run", progress=first or False)
    except KeyboardInterrupt:
        capsys.readouterr()
    result = fit(net, data, recipe, epochs=4, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert [r.epoch for r in result.history] == [1, 2, 3, 4]
    assert result.history[-1].lr == pytest.approx(0.01 * lr_factor(load_recipe({**recipe, "epochs": 4}), 4)(15))
    if schedule == "constant":
        whole = fit(net, data, recipe, epochs=4)
        assert all(torch.equal(result.weights[k], v) for k, v in whole.weights.items())
        assert said.strip() == "note: the run goes on to epoch 4, not 2"
    else:
        assert re.search(r"not 2; the cosine schedule is that of 4 epochs from here on, learning rate 0\.00", said)
    with pytest.raises(RunError, match=r"has trained 4 epochs, more than 2\n  hint: --epochs 4, or more, goes on"):
        fit(net, data, recipe, epochs=2, out=tmp_path / "run")


def test_moved_data_and_another_working_directory(
    net: Any, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder("a", "b", images=10)
    (tmp_path / "net.yaml").write_text(json.dumps(net))
    monkeypatch.chdir(tmp_path)
    common = ["--recipe-set=batch_size=4", "--recipe-set=workers=0", "--epochs"]
    run = ["--out", str(tmp_path / "run"), *common]
    assert main(["train", "net.yaml", "--data", "imagefolder:images", *run, "1"]) == 0
    spec = str(tmp_path / "net.yaml")
    assert main(["train", spec, "--data", f"imagefolder:{tmp_path / 'images'}", *run, "2"]) == 0
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", spec, "--data", "imagefolder:../elsewhere", *run, "3"]) == 0
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 4


def test_equal_runs_are_equal_bytes(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(json.dumps(net))
    program = (
        "import sys\nfrom blockforge.cli import main\n"
        "sys.exit(main(['train', sys.argv[1], '--data', 'digits', '--epochs', '1', '--out', sys.argv[2]]))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("one", "two"):
        command = [sys.executable, "-c", program, str(tmp_path / "net.yaml"), str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, env=env)
    for file in ("model.safetensors", "best.safetensors", "spec.yaml", "graph.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_the_command_that_goes_on(
    net: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    (tmp_path / "a net.yaml").write_text(json.dumps(net))
    monkeypatch.chdir(tmp_path)
    real, raised = loop.Trainer._step, []

    def step(self: loop.Trainer, *batch: torch.Tensor) -> torch.Tensor:
        if self.position.step == 3 and not raised:
            raised.append(signal.raise_signal(number))
        return real(self, *batch)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    argv = ["train", "a net.yaml", "--data", "digits", "--epochs", "1", "--out", "run"]
    assert main(argv) == code
    said = capsys.readouterr().err
    assert "the run in run is saved, 0 epochs done; this goes on with it:\n" in said
    assert "\n  blockforge train 'a net.yaml' --data digits --epochs 1 --out run\n" in said
    assert main(argv) == 0
    assert "goes on after step 4 of" in capsys.readouterr().err
