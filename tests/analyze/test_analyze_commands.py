"""`blockforge analyze`, run in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

import blockforge as bf
from blockforge.cli import main
from blockforge.saving import save_weights

SPECS = Path(__file__).parents[1] / "specs"
ATTENTION, NC_SSD = str(SPECS / "attention.yaml"), str(SPECS / "nc_ssd.yaml")
FEW = ["--images", "4", "--batch", "4"]
COMMANDS = {
    "cka": [ATTENTION, *FEW],
    "erf": [ATTENTION, NC_SSD, *FEW],
    "rf": [ATTENTION, *FEW, "--variant", "windows: blocks.layer.0.window=4"],
    "m": [NC_SSD],
    "cam": [ATTENTION],
    "activations": [ATTENTION, NC_SSD, *FEW],
}


class Result(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> Result:
        code = main(["analyze", *argv])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_writes_a_picture_and_a_table(run: Run, command: str, tmp_path: Path, image: str) -> None:
    folder = tmp_path / "deep" / "out"
    extra = ["--image", image] if command == "cam" else []
    result = run(command, *COMMANDS[command], *extra, "-o", str(folder))
    assert result.code == 0, result.err
    assert result.out.endswith(f"written to {folder}\n")
    assert sorted(f.name for f in folder.iterdir()) == [f"{command}.csv", f"{command}.png"]
    picture = imread(folder / f"{command}.png")
    assert min(picture.shape[:2]) > 150
    assert float(picture[..., :3].std()) > 0.05
    with (folder / f"{command}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 2
    assert len({tuple(row.values()) for row in rows}) == len(rows)


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_all_that_is_printed(
    run: Run, command: str, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = ["--image", image] if command == "cam" else []
    result = run(command, *COMMANDS[command], *extra, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)
    (folder,) = (tmp_path / "runs" / "analyze").iterdir()
    assert folder.name.startswith(f"{command}-")
    assert (folder / f"{command}.png").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"Examples:\n    blockforge analyze {command} " in result.out


def test_purposes_fit_on_one_line(run: Run) -> None:
    listed = run("--help").out.partition("Commands:\n")[2]
    assert listed.count("\n") == len(COMMANDS)
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_of_a_figure_is_cut_off(
    run: Run, command: str, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("blockforge.figures.write_figure", lambda path, figure: drawn.append(figure))
    extra = ["--image", image] if command == "cam" else []
    assert run(command, *COMMANDS[command], *extra, "-o", str(tmp_path)).code == 0
    (figure,) = drawn
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    labels = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    for text in (*figure.texts, *labels):
        box = text.get_window_extent()
        if text.get_text():
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            assert inside, f"{text.get_text()!r} at {box}, on {width} x {height}"


def test_between_two_networks(run: Run, tmp_path: Path) -> None:
    argv = [ATTENTION, NC_SSD, "--between", "--set", "input.size=32", *FEW, "--json", "-o", str(tmp_path)]
    result = run("cka", *argv)
    assert result.code == 0, result.err
    (found,) = json.loads(result.out).values()
    assert (len(found["rows"]), len(found["columns"])) == (5, 5)


def test_weights_change_the_figures(run: Run, tmp_path: Path) -> None:
    assert main(["build", ATTENTION, "--seed", "7", "-o", str(tmp_path / "model")]) == 0
    argv = [ATTENTION, "--images", "2", "--json", "-o", str(tmp_path)]
    run("erf", *argv)
    new = json.loads(run("erf", *argv).out)
    loaded = json.loads(run("erf", *argv, "--weights", str(tmp_path / "model" / "model.safetensors")).out)
    seeded = json.loads(run("erf", *argv, "--seed", "7").out)
    assert new != loaded != seeded


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["rf", NC_SSD], "nc_ssd has no layers with attention\n  hint: these have: crossvit_9_240"),
        (["m", ATTENTION], "attention has no layers with token weights\n  hint: these have: vssd_base"),
        (["cam", ATTENTION, "--image", "nosuch.png"], "there is no image nosuch.png"),
        (["cka", ATTENTION, "--images", "3"], "CKA needs batches of 4 images or more"),
        (["cka", "sparx_connections:99"], "sparx_connections has no row '99'"),
        (["erf", ATTENTION, "--data", "nosuch"], "no data source 'nosuch'"),
        (["erf", ATTENTION, "--weights", "nosuch.pth"], "no weights at nosuch.pth"),
        (["activations", ATTENTION, "--device", "abacus"], "no device is named 'abacus'"),
    ],
)
def test_mistakes_leave_nothing_behind(
    run: Run, argv: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*argv)
    assert result.code == 1
    assert result.err.startswith(f"error: {text}")
    assert result.out == ""
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run("erf", ATTENTION, "--images", "1", "-o", str(tmp_path / "file"))
    assert result.code == 1
    assert f"cannot write to {tmp_path / 'file'}" in result.err


@pytest.mark.parametrize("command", COMMANDS)
def test_untrained_networks_and_noise_are_said(run: Run, command: str, tmp_path: Path, image: str) -> None:
    extra = ["--image", image] if command == "cam" else []
    result = run(command, *COMMANDS[command], *extra, "-o", str(tmp_path), "--format", "svg")
    what = "untrained weights" if command == "cam" else "untrained weights and noise in place of images"
    assert f"Of {what}: it shows the architecture" in result.out
    drawn = (tmp_path / f"{command}.svg").read_text(encoding="utf-8")
    assert "untrained weights" in drawn


def test_trained_networks_on_images_need_no_caution(run: Run, tmp_path: Path, image: str) -> None:
    weights = tmp_path / "weights.safetensors"
    save_weights(bf.build(ATTENTION, seed=0), weights)
    result = run("erf", ATTENTION, "--data", image, "--weights", str(weights), "-o", str(tmp_path), "--format", "svg")
    assert result.code == 0, result.err
    assert "untrained" not in result.out + (tmp_path / "erf.svg").read_text(encoding="utf-8")


def test_some_networks_are_trained(run: Run, tmp_path: Path, image: str) -> None:
    result = run("erf", ATTENTION, "--data", image, "-o", str(tmp_path))
    assert "Of untrained weights: it shows" in result.out
    assert "--weights gives others" in result.out


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_come_in_formats_that_are_equal_each_time(run: Run, format: str, start: bytes, tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert run("erf", ATTENTION, *FEW, "-o", str(folder), "--format", format).code == 0
        made.append((folder / f"erf.{format}").read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith(start)


def test_several_formats_and_one_that_is_none(run: Run, tmp_path: Path) -> None:
    assert run("erf", ATTENTION, *FEW, "-o", str(tmp_path), "--format", "svg,pdf").code == 0
    assert sorted(f.name for f in tmp_path.iterdir()) == ["erf.csv", "erf.pdf", "erf.svg"]
    assert "did you mean 'svg'" in run("erf", ATTENTION, *FEW, "-o", str(tmp_path / "no"), "--format", "sgv").err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("command", ["cam", "rf"])
def test_a_map_of_one_position_has_nothing_to_see(run: Run, command: str, tmp_path: Path, image: str) -> None:
    size = ["--set", "input.size=4"]
    extra = ["--image", image] if command == "cam" else FEW
    result = run(command, ATTENTION, *size, *extra, "-o", str(tmp_path / "out"))
    assert result.code == 1
    assert "1x1" in result.err
    assert "--set input.size" in result.err
    assert not (tmp_path / "out").exists()
