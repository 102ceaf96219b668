"""A full disk under every command that writes: one error, exit 1, and no part of a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import no_file_above

import blockforge as bf
from blockforge.cli import main
from blockforge.search.study import patience

ROOT = Path(__file__).parents[2]
SPEC = str(ROOT / "specs" / "narrow" / "convnext.yaml")
OFFICIAL = {"input.size": 32, "num_classes": 3, **{f"stages.{i}.depth": 1 for i in range(4)}}


COMMANDS: dict[str, tuple[list[str], int]] = {
    "build": (["build", SPEC, "-o", "out"], 5000),
    "graph svg": (["graph", SPEC, "-o", "x.svg", "--engine", "builtin"], 200),
    "graph dot": (["graph", SPEC, "-o", "x.dot"], 200),
    "graph json": (["graph", SPEC, "-o", "x.json"], 200),
    "schema": (["schema", "-o", "x.json"], 200),
    "expand": (["expand", SPEC, "-o", "x.yaml"], 200),
    "export": (["export", SPEC, "--format", "export", "-o", "x.pt2"], 20_000),
    "export onnx": (["export", SPEC, "-o", "x.onnx"], 20_000),
    "eject": (["eject", SPEC, "-o", "x.py"], 200),
    "convert": (["convert", "official.pth", "--spec", "resnet50", "-o", "x.safetensors"], 20_000),
    "eval": (["eval", "net.yaml", "--weights", "w.safetensors", "--data", "npz:d.npz", "--confusion", "x.csv"], 10),
    "train": (["train", SPEC, "--data", "digits", "--epochs", "1", "--out", "out"], 400_000),
    "train, at once": (["train", SPEC, "--data", "digits", "--epochs", "1", "--out", "out"], 300),
    "profile": (["profile", SPEC, "--seconds", "0.01", "--batch", "1", "-o", "out"], 100),
    "analyze": (["analyze", "erf", SPEC, "--images", "1", "-o", "out"], 20),
    "ablate": (["ablate", "sparx_connections", "-o", "x.md"], 20),
    "space": (["space", "tiny", "--draws", "20", "-o", "x.png"], 200),
    "space, specs": (["space", "tiny", "--sample", "2", "-o", "out"], 20),
    "search": (["search", "tiny", "--trials", "3", "--out", "out"], 5000),
    "report": (["report", "study", "-o", "out"], 200),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in an official layout, a saved network, images and a search."""
    folder = tmp_path_factory.mktemp("place")
    from blockforge.weights.family import FAMILIES

    sources = FAMILIES["resnet"].sources
    state = bf.build("resnet50", OFFICIAL, seed=0).state_dict()
    torch.save({names[0]: v for k, v in state.items() if (names := sources(k))}, folder / "official.pth")
    bf.save_model(bf.build(SPEC, {"name": "net", "num_classes": 2}), folder / "saved")
    shutil.copy(folder / "saved" / "spec.yaml", folder / "net.yaml")
    shutil.copy(folder / "saved" / "model.safetensors", folder / "w.safetensors")
    np.savez(folder / "d.npz", images=np.zeros((20, 32, 32), np.uint8), labels=np.arange(20) % 2)
    assert main(["search", "tiny", "--trials", "2", "--out", str(folder / "study")]) == 0
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_exit_1(
    here: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "FILE", 2.0)  # a search waits for room on the disk
    argv, limit = COMMANDS[command]
    if command == "convert":
        argv = [*argv, *(f"--set={k}={v}" for k, v in OFFICIAL.items())]
    before = {p for p in here.rglob("*") if p.is_file()}
    with no_file_above(limit):
        code = main(argv)
    said = capsys.readouterr().err
    assert code == 1, said
    lines = [line for line in said.splitlines() if "error: " in line]
    assert len(lines) == 1, said
    assert lines[0].startswith("error: cannot write ")
    assert "file too large" in lines[0] or command == "search"  # whose journal says no space, and goes on later
    assert not [p for p in here.rglob("*") if p.name.endswith(".tmp")]
    new = {p for p in here.rglob("*") if p.is_file()} - before
    assert not [p for p in new if p.name.startswith("x.")]


def test_a_run_keeps_its_last_checkpoint_and_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", SPEC, "--data", "digits", "--recipe-set", "save_seconds=0", "--out", "out", "--epochs"]
    assert main([*argv, "1"]) == 0
    kept = (here / "out" / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    with no_file_above(len(kept) // 2):
        assert main([*argv, "2"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "error: cannot write to out: file too large; its last checkpoint is kept, and the same command"
    )
    assert (here / "out" / "checkpoint.safetensors").read_bytes() == kept
    assert main([*argv, "2"]) == 0
    assert "goes on after step" in capsys.readouterr().err


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: folder.write_text("taken"),
    "a file above": lambda folder: folder.parent.joinpath("up").write_text("taken"),
}


@pytest.mark.parametrize("command", [c for c, (argv, _) in COMMANDS.items() if argv[-1] == "out"])
@pytest.mark.parametrize("way", IN_THE_WAY)
def test_a_file_in_the_place_of_a_folder(
    here: Path, command: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    IN_THE_WAY[way](here / "out")
    target = "out" if way == "a file" else "up/out"
    assert main([*COMMANDS[command][0][:-1], target]) == 1
    said = capsys.readouterr().err
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1, said
    assert "cannot write" in said


@pytest.mark.parametrize("command", [c for c, (argv, _) in COMMANDS.items() if argv[-1].startswith("x.")])
def test_a_device_that_is_full(here: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Formats that a file's name tells are asked for by another name."""
    argv, _ = COMMANDS[command]
    if command.startswith(("graph", "ablate")):
        (here / argv[-1]).symlink_to("/dev/full")
        target = argv[-1]
    else:
        target = "/dev/full"
    extra = [f"--set={k}={v}" for k, v in OFFICIAL.items()] if command == "convert" else []
    assert main([*argv[:-1], target, *extra]) == 1
    said = capsys.readouterr().err
    assert f"error: cannot write {target}: no space left on device" in said
