"""What all commands share: `--plugin` before and after the command, and values that nothing could use."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import typer

from blockforge.blocks import registry
from blockforge.cli import main, make_app

PLUGIN = Path(__file__).parents[1] / "data" / "plugin"
FILE, SPEC = str(PLUGIN / "pool_mixer.py"), str(PLUGIN / "pool_mixer.yaml")
LONG = "a" * 300


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))


def _commands() -> list[list[str]]:
    app = make_app()
    found = [[c.name] for c in app.registered_commands if c.name]
    for group in app.registered_groups:
        assert isinstance(group.typer_instance, typer.Typer)
        found += [[group.name, c.name] for c in group.typer_instance.registered_commands if group.name and c.name]
    return found


@pytest.mark.parametrize("argv", [["--plugin", FILE, "check", SPEC], ["check", SPEC, "--plugin", FILE]])
def test_a_plugin_before_and_after_the_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "pool_mixer.yaml: ok" in capsys.readouterr().out


def test_a_plugin_that_is_named_twice_is_loaded_once() -> None:
    assert main(["--plugin", FILE, "check", SPEC, "--plugin", FILE]) == 0


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_takes_a_plugin(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "--plugin FILE" in capsys.readouterr().out
    assert main([*command, "--plugin", "nosuch.py"]) == 1
    assert capsys.readouterr().err == "error: plugin file not found: nosuch.py\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("build smt_t --seed 9999999999999999999999", "a number beyond 64 bits"),
        ("space tiny --sample 2 --budget 5MFLOPs --fit nan -o x", "nan is not a finite number"),
        ("worker --storage x --lease inf", "inf is not a finite number"),
        ("space tiny --fit -inf", "-inf is not a finite number"),
    ],
)
def test_numbers_that_are_none(argv: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["build", ""], "an argument is empty"),
        (["build", "smt_t", "-o", ""], "the value of -o is empty"),
        (["build", "smt_t", "--output="], "the value of --output is empty"),
        (["show", "smt_t", "--set", ""], "the value of --set is empty"),
    ],
)
def test_an_empty_argument_is_never_the_current_folder(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert said in capsys.readouterr().err


NAMES = [LONG, f"{LONG}.yaml", f"./{LONG}.yaml", "a/" * 3000 + "x.yaml", "loop.yaml", "folder.yaml", "binary.yaml", "-"]
ON_PATHS = [
    "build smt_t --weights {}", "build smt_t -o {}", "build smt_t -o {}/a", "convert {} -o out.safetensors",
    "graph smt_t -o {}/a.svg", "eject smt_t -o {}", "export smt_t -o {}", "report {}", "worker --storage {}",
    "search --resume {}", "ablate {}", "eval smt_t --data digits --weights {}", "train smt_t --data imagefolder:{}",
    "train smt_t --data npz:{}", "train smt_t --data digits --recipe {}", "--plugin {} zoo", "zoo --plugin {}",
    "space {}", "check {}", "show {}", "expand {}", "diff smt_t {}", "schema -o {}", "bench models --peer {}:f",
    "analyze rf smt_t --data {}", "check smt_t --set stages.0.dim={}",
]  # fmt: skip


@pytest.mark.parametrize("line", ON_PATHS)
def test_paths_that_cannot_be(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too long, a loop of links, a folder, binary data: a line and exit 1 or 2, never a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    for name in NAMES:
        if "-o {}" in line and name in ("-", "folder.yaml", "binary.yaml"):
            continue  # that can be written
        code = main([part.format(name) for part in line.split()])
        said = capsys.readouterr().err
        assert code in (1, 2), (name, said)
        assert said.strip(), name
        assert max(map(len, said.splitlines())) < 1500, name


def test_what_the_system_says_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/a")

    monkeypatch.setattr("blockforge.compiler.check.check_source", full)
    assert main(["check", "smt_t"]) == 1
    assert capsys.readouterr().err == "error: cannot use runs/a: no space left on device\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["bench", "kernels", "--scaling", "--out", "x.bmp"],
        ["space", "tiny", "-o", "x.bmp"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_a_figure_that_cannot_be_drawn_is_told_before_anything_is_measured(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    said = capsys.readouterr()
    assert "end its name in .png, .svg or .pdf" in said.err
    assert not said.out
    assert not list(tmp_path.iterdir())
