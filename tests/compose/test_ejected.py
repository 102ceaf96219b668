"""Ejected files of composed blocks: a class for each code that runs, and nothing of blockforge."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import dwconv, linear, network
from test_composites import NETWORKS

import blockforge as bf
from blockforge.eject import check, eject, write_ejected

SMALL = sorted((Path(__file__).parent / "small").glob("*.yaml"))


@pytest.mark.parametrize("file", SMALL, ids=lambda f: f.stem)
def test_the_file_computes_what_the_model_does(file: Path, tmp_path: Path) -> None:
    assert write_ejected(bf.build(file, seed=0), tmp_path / "net.py").error <= check.TOLERANCE
    text = (tmp_path / "net.py").read_text(encoding="utf-8")
    assert "import blockforge" not in text
    assert "from blockforge" not in text
    torch.manual_seed(0)
    made = check._loaded(tmp_path / "net.py").Backbone().state_dict()
    assert all(torch.equal(made[k], v) for k, v in bf.build(file, seed=0).state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_composite_is_written_out(name: str, tmp_path: Path) -> None:
    assert write_ejected(bf.build(NETWORKS[name], seed=0), tmp_path / "net.py").error <= check.TOLERANCE


def test_equal_code_is_one_class() -> None:
    text = eject(bf.build(network({"op": [dwconv(5), linear()]})))
    names = [line.removeprefix("class ").partition("(")[0] for line in text.splitlines() if "(Parts):" in line]
    assert names == ["Stage", "Stem", "Chain", "Downsample", "Head"]
    assert "        x1 = self.dwconv(x_nchw)\n        x1_nhwc = x1.permute(0, 2, 3, 1)\n" in text
    assert "activate" not in text
    assert "None" not in text.partition("class Chain")[2].partition("class Downsample")[0].replace("-> None", "")


def test_names_that_python_has_for_itself(tmp_path: Path) -> None:
    op = {"op": "chain", "of": {"class": linear("$(2 * in)"), "1x1": linear()}}
    assert write_ejected(bf.build(network({"op": op}), seed=0), tmp_path / "net.py").error <= check.TOLERANCE


def test_classes_are_an_argument(tmp_path: Path) -> None:
    """Of each classifier; 0: none."""
    repvit = next(file for file in SMALL if file.stem == "repvit")
    (tmp_path / "net.py").write_text(eject(bf.build(repvit)), encoding="utf-8")
    made = check._loaded(tmp_path / "net.py").Backbone
    x = torch.randn(2, 3, 64, 64)
    assert made(num_classes=7)(x).shape == (2, 7)
    assert made(num_classes=0)(x).shape == (2, 32)


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("name", ["maxvit", "repvit"])
def test_the_file_is_formatted(name: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(eject(bf.build(next(f for f in SMALL if f.stem == name))), encoding="utf-8")
    config = str(Path(__file__).parents[2] / "pyproject.toml")
    for command in (["format", "--diff"], ["check"]):
        argv = [sys.executable, "-m", "ruff", *command, "--config", config, "--no-cache", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
