"""The commands, run in this process."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import blockforge as bf
import blockforge.cli
from blockforge.cli import INTERRUPTED, main
from blockforge.schema import schema_text

SMALL = ["--set", "stages.2.depth=2", "--set", "input.size=64"]


class Result(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> Result:
        code = main(list(argv))
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return file


GROUPS = ["analyze", "bench", "data"]
COMMANDS = sorted(
    {m.name for m in pkgutil.iter_modules(blockforge.cli.__path__) if not m.name.startswith("_")} - {*GROUPS}
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert "Examples:\n    blockforge " in result.out


def test_purposes_fit_on_one_line(run: Run) -> None:
    commands = run("--help").out.split("Commands:\n")[1]
    assert re.search(r"^  build +Build a model", commands, re.MULTILINE)
    assert "..." not in commands


@pytest.mark.parametrize("group", GROUPS)
def test_purposes_in_groups_are_whole(run: Run, group: str) -> None:
    assert "..." not in run(group, "--help").out.split("Commands:\n")[1]


def test_a_zoo_name_with_a_suffix(run: Run) -> None:
    result = run("show", "smt_t.yaml")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "error[file]: cannot read smt_t.yaml: no such file or directory\n  hint: smt_t, without .yaml, is in the zoo\n"
    )


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"blockforge {bf.__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ["nosuch"],
        ["show"],
        ["show", "smt_t", "--nosuch"],
        ["graph", "smt_t"],
        ["build", "smt_t", "--seed", "x"],
    ],
)
def test_misuse_exits_2(run: Run, argv: list[str]) -> None:
    result = run(*argv)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("Usage: blockforge")


def test_build_shows_costs_and_a_forward_pass(run: Run) -> None:
    result = run("build", "smt_t", *SMALL)
    assert result.code == 0, result.err
    assert re.search(
        r"^forward pass: 1x3x64x64 -> 1x1000 in \d+ ms \(float32, cpu, \d+ threads\)$",
        result.out,
        re.MULTILINE,
    )
    assert "1 MAC = 1 multiply-add" in result.out


def test_build_writes_a_folder_that_reloads(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    result = run("build", "smt_t", *SMALL, "--seed", "3", "-o", str(folder))
    assert result.code == 0, result.err
    assert f"written to {folder}" in result.out
    assert sorted(f.name for f in folder.iterdir()) == [
        "graph.json",
        "model.safetensors",
        "spec.yaml",
        "versions.json",
    ]
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    same = bf.build("smt_t", {"stages.2.depth": 2, "input.size": 64}, seed=3)
    with torch.inference_mode():
        torch.testing.assert_close(bf.load_model(folder).eval()(x), same.eval()(x), rtol=0, atol=0)
    again = run("build", str(folder / "spec.yaml"), "--weights", str(folder / "model.safetensors"), "--json")
    assert json.loads(again.out)["hash"] == same.arch.hash


def test_build_json_is_one_document(run: Run) -> None:
    shown = json.loads(run("build", "smt_t", *SMALL, "--json").out)
    arch = bf.compile("smt_t", {"stages.2.depth": 2, "input.size": 64})
    assert (shown["params"], shown["macs"]) == (arch.params, arch.macs)
    assert shown["proof"]["output"] == [1, 1000]
    assert shown["proof"]["finite"] is True
    assert shown["folder"] is None


def test_build_refuses_a_file_for_a_folder(run: Run, write: Callable[[str, str], str]) -> None:
    result = run("build", "smt_t", "-o", write("taken", ""))
    assert (result.code, result.out) == (1, "")
    assert re.match(r"error: cannot write to .*taken: it is not a folder", result.err)


def test_errors_of_a_spec_are_shown_without_a_traceback(run: Run) -> None:
    result = run("show", "smt_t", "--set", "stages.0.dim=65", "--set", "stages.9.dim=1")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("--set:1:1: error[set]: stages has no item '9'")
    assert "\x1b" not in result.err


def test_other_errors_start_with_error(run: Run) -> None:
    result = run("build", "smt_t", *SMALL, "--weights", "/nonexistent.pth")
    assert result.code == 1
    assert result.err.startswith("error: no weights at ")


def test_show_lists_layers_unless_told_not_to(run: Run) -> None:
    assert re.search(r"^ *2\.7 +msa ", run("show", "smt_t").out, re.MULTILINE)
    assert not re.search(r"^ *2\.7 +msa ", run("show", "smt_t", "--no-layers").out, re.MULTILINE)


def test_show_json_reloads(run: Run) -> None:
    result = run("show", "smt_t", "--set", "stages.2.depth=3", "--json")
    assert bf.Architecture.from_json(result.out).hash == bf.compile("smt_t", {"stages.2.depth": 3}).hash


@pytest.mark.parametrize(
    ("name", "start"),
    [("x.svg", "<svg "), ("x.dot", 'digraph "smt_t"'), ("x.mmd", "flowchart"), ("x.JSON", "{")],
)
def test_graph_writes_what_the_ending_says(run: Run, tmp_path: Path, name: str, start: str) -> None:
    result = run("graph", "smt_t", "-o", str(tmp_path / name), "--engine", "builtin")
    assert (result.code, result.out) == (0, f"written to {tmp_path / name}\n")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert [f.name for f in tmp_path.iterdir()] == [name]  # no temporary file is left


def test_graph_refuses_a_missing_folder(run: Run, tmp_path: Path) -> None:
    result = run("graph", "smt_t", "-o", str(tmp_path / "no" / "x.dot"))
    assert result.code == 1
    assert re.match(r"error: cannot write .*x\.dot: there is no folder .*no\n  hint: mkdir -p ", result.err)


def test_graph_refuses_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.dot").mkdir()
    result = run("graph", "smt_t", "-o", str(tmp_path / "x.dot"))
    assert result.code == 1
    assert result.err.endswith("x.dot: it is a folder\n")


def test_zoo_lists_specs_with_what_papers_report(run: Run) -> None:
    result = run("zoo", "smt_[st]")
    assert re.search(r"^ *smt_t +11\.5M +2\.46G +\S+ MB +13 +.*2\.4G flops", result.out, re.MULTILINE)
    assert "smt_s" in result.out
    assert "smt_b" not in result.out
    assert run("zoo", "nosuch*").out.startswith("no spec of the zoo matches 'nosuch*'; there are: ")
    assert [row["name"] for row in json.loads(run("zoo", "smt_t", "--json").out)] == ["smt_t"]


def test_schema_is_printed_or_written(run: Run, tmp_path: Path) -> None:
    assert run("schema").out == schema_text()
    assert run("schema", "-o", str(tmp_path / "s.json")).code == 0
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == schema_text()
    (tmp_path / "net.yaml").write_text("extends: smt_t\ndefine: {my_norm: layer_norm}\n", encoding="utf-8")
    assert '"my_norm"' in run("schema", str(tmp_path / "net.yaml")).out


def test_doctor_says_what_would_run(run: Run) -> None:
    found = {f["name"]: f for f in json.loads(run("doctor", "--json").out)}
    assert found["torch"]["value"] == torch.__version__
    assert {"python", "optuna", "pydantic", "cpu", "triton", "oneDNN", "BLAS", "graphviz dot"} <= set(found)
    assert all(f["value"] for f in found.values())
    table = run("doctor").out
    assert all(name in table for name in found)


def test_bench_compile_measures_all_in_one_run(run: Run) -> None:
    timings = json.loads(run("bench", "compile", "smt_t", "--runs", "3", "--json").out)
    assert len({t["name"] for t in timings}) == 5
    assert all(0 < t["low_ms"] <= t["median_ms"] <= t["high_ms"] for t in timings)
    assert "one CPU thread" in run("bench", "compile", "smt_t", "--runs", "3").out


def test_plugins_add_blocks(run: Run, write: Callable[[str, str], str]) -> None:
    from blockforge.blocks import registry

    plugin = write(
        "plug.py",
        "from blockforge.blocks.mixers.dwconv import DepthwiseConv\n"
        "from blockforge.blocks.registry import mixer\n"
        "@mixer('plugged_conv')\n"
        "class Plugged(DepthwiseConv):\n    'Another name.'\n",
    )
    change = ["show", "smt_t", "--no-layers", "--set", "blocks.sam.0={op: plugged_conv}"]
    assert "error[unknown-mixer]" in run(*change).err
    try:
        assert run("--plugin", plugin, *change).code == 0
    finally:
        registry.BLOCKS.things.pop("plugged_conv", None)
    assert run("--plugin", "nosuch.py", "zoo").err == "error: plugin file not found: nosuch.py\n"


def test_an_interrupt_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blockforge.doctor.examine", interrupted)
    assert run("doctor") == (INTERRUPTED, "", "interrupted\n")


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("blockforge.doctor.examine", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("doctor")


def test_errors_are_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from blockforge.cli._output import coloured

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = "a.yaml:1:1: error[key]: no\n    1 | x: y\n      | ^\n  hint: z"
    shown = coloured(text)
    assert "\x1b[1;31merror[key]\x1b[0m" in shown
    assert "\x1b[1;36m  hint:\x1b[0m z" in shown
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured(text) == text


def test_no_option_is_described_twice() -> None:
    """Commands that share an option share its declaration."""
    texts: list[str] = []
    for file in sorted(Path(blockforge.cli.__path__[0]).glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("typer.Option", "typer.Argument"):
                helps = (keyword.value for keyword in call.keywords if keyword.arg == "help")
                texts += [ast.unparse(text) for text in helps if isinstance(text, ast.Constant)]
    assert [text for text, number in Counter(texts).items() if number > 1] == []
