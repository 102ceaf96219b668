"""The commands speak of the deployed form where they are asked to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import blockforge as bf
from blockforge.cli import main

SPEC = """
blockforge: 1
name: branches
input: {size: 32}
num_classes: 10
stem: [{op: conv, dim: 8, kernel_size: 3, stride: 4}, batch_norm, relu]
stages: [{dim: 8, layers: [{op: parallel, of: [[{op: conv, kernel_size: 3}, batch_norm], batch_norm]}, relu]}]
head: [global_pool, logits]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "branches.yaml").write_text(SPEC)
    return str(tmp_path / "branches.yaml")


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_show_and_profile_say_which_form_it_is(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arch = bf.compile(file)
    assert "branches (deployed): image" in ran(capsys, "show", file, "--deploy", "--parts")
    assert "deployed" not in ran(capsys, "show", file)
    totals = json.loads(ran(capsys, "show", file, "--deploy", "--json"))["totals"]
    assert (totals["params"], totals["form"], totals["hash"]) == (arch.deployed.params, "deployed", arch.hash)
    assert "branches (deployed) on cpu" in ran(capsys, "profile", file, "--deploy", "--batch", "1", "--seconds", "0.01")
    assert repr(arch.deployed).startswith("<Architecture branches (deployed): ")


def test_build_writes_a_deployed_model(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = json.loads(ran(capsys, "build", file, "--deploy", "--seed", "0", "-o", str(tmp_path / "out"), "--json"))
    model = bf.load_model(tmp_path / "out")
    assert (out["form"], out["params"]) == ("deployed", model.arch.params) == (model.arch.form, out["params"])
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), bf.build(file, seed=0).eval()(x), rtol=1e-4, atol=1e-5)
    assert "branches (deployed)" in ran(capsys, "build", file, "--deploy")


def test_export_writes_the_deployed_form(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, deployed = (str(tmp_path / f"{name}.pt2") for name in ("plain", "deployed"))
    before = json.loads(ran(capsys, "export", file, "--format", "export", "-o", plain, "--json"))
    after = json.loads(ran(capsys, "export", file, "--format", "export", "-o", deployed, "--deploy", "--json"))
    assert (before["form"], after["form"]) == ("trained", "deployed")
    assert after["nodes"] < before["nodes"]
    out = ran(capsys, "export", file, "--format", "export", "-o", deployed, "--deploy", "--dynamic", "batch,hw")
    assert "branches (deployed): 898 params" in " ".join(out.split())


def test_onnx_files_hold_the_deployed_form(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ran(capsys, "export", file, "-o", str(tmp_path / "net.onnx"), "--deploy", "--out-indices", "0")
    operators = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert "Conv" in operators
    assert not operators & {"BatchNormalization", "Add"}


def test_eject_writes_the_deployed_form(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = json.loads(ran(capsys, "eject", file, "--deploy", "-o", str(tmp_path / "net.py"), "--json"))
    text = (tmp_path / "net.py").read_text()
    assert done["form"] == "deployed"
    assert "branches (deployed), an image classifier" in text
    assert "nn.BatchNorm2d(8" not in text


def test_what_it_is_not_for_is_said(file: str) -> None:
    arch = bf.compile(file).deployed
    with pytest.raises(bf.BlockforgeError, match="branches is deployed, which is not trained"):
        arch.training_memory()
