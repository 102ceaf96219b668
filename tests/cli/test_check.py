"""`blockforge check`: files, and every option of search spaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.compiler.check import check_source
from blockforge.spec import load

SPACE = {
    "stages.0.depth": {"$int": [1, 3]},
    "stages.2.layers": {"$choice": ["sam", "(sam msa)*"]},
    "blocks.sam.0.num_heads": {"$choice": [2, 4]},
}


def test_all_errors_of_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(
        "extends: smt_t\nname: a\nstages: {0: {dim: 65}, 1: {depth: 0}}\n", encoding="utf-8"
    )
    (tmp_path / "b.yaml").write_text("extends: smt_t\nnam: b\nhed: {op: x}\n", encoding="utf-8")
    code = main(["check", str(tmp_path / "a.yaml"), "smt_t", str(tmp_path / "b.yaml")])
    out, err = capsys.readouterr()
    assert code == 1
    assert f"{tmp_path}/a.yaml:3:" in err
    assert "there is no key 'nam'" in err
    assert "there is no key 'hed'" in err
    assert out.splitlines()[0].endswith("a.yaml: 1 error")
    assert out.splitlines()[1].startswith("smt_t: ok (11.5M params, 2.46G MACs")
    assert out.splitlines()[2].endswith("b.yaml: 2 errors")
    assert out.splitlines()[3] == "1 of 3 specs are right"


def test_a_right_spec_exits_0_and_shows_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "smt_t", "--set", "stages.3.window=9"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("smt_t: ok")
    assert "warning[window]" in err


def test_no_tensor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a module was made")

    monkeypatch.setattr("torch.nn.Module.__init__", refuse)
    assert check_source("smt_t").ok


def test_every_option_is_tried() -> None:
    found = check_source(load("smt_t", SPACE))
    assert found.ok
    assert str(found) == "ok (a space of 3 holes, 4 candidates tried)"  # the first values, and three others


def test_an_option_that_is_never_right_is_an_error() -> None:
    found = check_source(load("smt_t", {**SPACE, "blocks.sam.0.expand": {"$choice": [1, 2, 5000]}}))
    assert [d.code for d in found.diagnostics] == ["value"]
    assert "blocks.sam.0.expand=5000" in found.diagnostics[0].message
    assert str(found) == "1 error"


def test_options_inside_options_are_tried() -> None:
    inner = {"op": "sam", "num_heads": {"$choice": [2, 3]}}
    found = check_source(load("smt_t", {"blocks.sam.0": {"$choice": [{"op": "dwconv"}, inner]}}))
    assert not found.ok
    assert all("num_heads=3" in d.message for d in found.diagnostics)
    assert "64 is not divisible" in found.diagnostics[0].message


def test_an_option_that_is_right_beside_others_is_no_error() -> None:
    heads = {"$choice": [2, 4]}  # 4 heads divide 64, but not the first dim
    found = check_source(load("smt_t", {"stages.0.dim": {"$choice": [34, 64]}, "blocks.sam.0.num_heads": heads}))
    assert found.ok
    assert "; options that do not fit beside the first values of the others: 1" in str(found)
