"""`blockforge check`: files, and every option of search spaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.compiler.check import check_source
from blockforge.compiler.uncalled import wrong_calls
from blockforge.spec import load
from blockforge.spec.glossary import Glossary
from blockforge.spec.load import DEFINITIONS, list_specs

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


LIBRARY = """blockforge: 1
use: [std]
define:
  right: {params: {mid: required}, body: [{op: se, mid: $mid}, {op: parallel, of: {a: relu, b: [conv]}, join: concat}]}
  typo: [{op: convv, dim: 3}, relu]
  key: {op: residual, of: [{op: conv, kernal_size: 3}]}
  value: {op: graph, of: {a: {op: conv, kernel_size: -3}, b: {from: [input, a], join: sum, op: {op: mlp, act: siluu}}}}
"""


def test_a_file_of_definitions_is_checked_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lib.yaml").write_text(LIBRARY, encoding="utf-8")
    assert main(["check", str(tmp_path / "lib.yaml")]) == 1
    out, err = capsys.readouterr()
    assert out.endswith("lib.yaml: 4 errors\n")
    assert "lib.yaml:5:15: error[unknown-op]: there is no op named 'convv' (define.typo[0].op)" in err
    assert "did you mean 'conv'?" in err
    assert (
        "lib.yaml:6:39: error[unknown-key]: 'conv' has no parameter 'kernal_size' (define.key.of[0].kernal_size)" in err
    )
    assert "this should be at least 1, not -3 (define.value.of.a.kernel_size)" in err
    assert "no act named 'siluu' (define.value.of.b.op.act)" in err
    (tmp_path / "lib.yaml").write_text("".join(LIBRARY.splitlines(keepends=True)[:4]), encoding="utf-8")
    assert main(["check", str(tmp_path / "lib.yaml")]) == 0
    assert capsys.readouterr().out.endswith("lib.yaml: ok (definitions: right)\n")
    assert main(["build", str(tmp_path / "lib.yaml")]) == 1
    assert "error[spec]: this is a file of definitions, and no network" in capsys.readouterr().err


def test_definitions_that_nothing_calls_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("extends: smt_t\ndefine: {a: [convv]}\n", encoding="utf-8")
    found = check_source(tmp_path / "net.yaml")
    assert found.ok
    assert [(d.code, d.severity) for d in found.diagnostics] == [("unknown-op", "warning")]


def test_packaged_definitions_are_right() -> None:
    for name in DEFINITIONS:
        assert check_source(str(DEFINITIONS[name])).diagnostics == []
    for name in list_specs():
        spec = load(name)
        assert list(wrong_calls(Glossary.of(spec.lifted), spec.locs)) == []


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
