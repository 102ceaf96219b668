"""Arrays: what their values mean, which axis holds the channels, and labels that are none."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import blockforge as bf
from blockforge.cli import main
from blockforge.train import DataError, check_data, evaluate, fit, open_data
from blockforge.train.arrays import channel_axis
from blockforge.train.data import Want
from blockforge.train.images import decode
from blockforge.train.tensor_split import TensorSplit

LABELS = np.arange(20) % 2
RAMP = np.linspace(0, 1, 20 * 6 * 5).reshape(20, 6, 5)
Npz = Callable[..., str]


@pytest.fixture
def npz(tmp_path: Path) -> Npz:
    def write(options: str = "", **arrays: Any) -> str:
        np.savez(tmp_path / "data.npz", **arrays)
        return f"npz:{tmp_path / 'data.npz'}{options}"

    return write


def _unit(images: torch.Tensor) -> torch.Tensor:
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()


@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("uint8", 255), ("uint16", 65535), (">u2", 65535), ("float16", 1), ("float32", 1), ("float64", 1),
        ("int16", 255), ("int32", 255), ("int64", 255), ("uint32", 255),
    ],
)  # fmt: skip
def test_values_are_what_their_type_says(npz: Npz, kind: str, scale: int) -> None:
    values = RAMP * scale
    images = (values.round() if scale > 1 else values).astype(kind)
    data = open_data(npz(images=images, labels=LABELS))
    read = torch.cat([x for split in data.parts.values() for x, _ in split.batches(Want((6, 5), 1, 20))])
    rows = sorted(range(20), key=lambda row: float(_unit(read)[row].mean()))
    assert float((_unit(read)[rows, 0] - torch.from_numpy(RAMP)).abs().max()) < 1 / 400


def test_booleans_are_black_and_white(npz: Npz) -> None:
    data = open_data(npz(images=RAMP > 0.5, labels=LABELS))
    read = torch.cat([next(iter(split.batches(Want((6, 5), 1, 20))))[0] for split in data.parts.values()])
    assert read.unique().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((RAMP * 1000).astype(np.int64), "int64, 0 to 1000; use uint8, or floats in 0..1\n.*no agreed range"),
        ((RAMP > 0.5).astype(np.int64), "int64, 0 to 1; use uint8"),
        ((RAMP * 100 - 50).astype(np.int8), "int8, -50 to 50; use uint8"),
        (np.where(RAMP < 0.5, np.nan, RAMP), "float64, nan to nan; .*\n.*300 of 600 values are NaN"),
        (RAMP * 255, "float64, 0.0 to 255.0; use uint8, or floats in 0..1"),
        (RAMP.astype(complex), "complex128; use uint8"),
        (np.full((20, 6, 5), "x"), "U1; use uint8"),
    ],
)
def test_values_without_an_agreed_range_are_refused(npz: Npz, images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(npz(images=images, labels=LABELS))


# --- which axis holds the channels


@pytest.mark.parametrize(
    ("shape", "channels", "axis"),
    [
        ((28, 28, 1), None, 2), ((1, 28, 28), None, 0), ((32, 32, 3), None, 2), ((3, 32, 32), 32, 0),
        ((64, 64, 12), 12, 2), ((12, 64, 64), 12, 0), ((64, 64, 12), None, None), ((32, 32, 32), 32, None),
        ((64, 64, 12), 3, None), ((4, 4, 12), 12, 2), ((4, 4, 12), 4, 0), ((4, 4, 3), 3, 2), ((3, 4, 4), 1, 0),
        ((1, 4, 4), 5, 0), ((3, 3, 3), 3, None), ((224, 224, 13), 13, 2), ((13, 13, 13), 13, None),
    ],
)  # fmt: skip
def test_the_axis_of_the_channels(shape: tuple[int, int, int], channels: int | None, axis: int | None) -> None:
    assert channel_axis(shape, channels) == axis


@pytest.mark.parametrize("last", [True, False])
def test_spectra_are_read_by_the_networks_channels(npz: Npz, net: Any, fast: Any, last: bool) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 12, 8, 8), dtype=np.uint8)
    source = npz(images=images.transpose(0, 2, 3, 1) if last else images, labels=LABELS)
    data = open_data(source)
    read = torch.cat([next(iter(split.batches(Want((8, 8), 12, 20))))[0] for split in data.parts.values()])
    assert sorted(read.flatten(1).tolist()) == sorted(images.reshape(20, -1).tolist())
    spec = {**net, "input": {"channels": 12, "size": 8}}
    result = fit(spec, source, fast, epochs=1)
    assert evaluate(result.model, source, recipe=fast, split="val").top1 == result.final
    assert data.train.statistics(12) is not None
    assert not check_data(source, workers=0).problems


def test_an_unclear_layout_is_refused_until_it_is_said(npz: Npz) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 8), dtype=np.uint8)
    arrays = {"images": images, "labels": LABELS}
    with pytest.raises(
        DataError, match=r"8 x 8 x 8 have 8 channels or 8.*the network takes 8\n  hint: .*\?layout=nhwc"
    ):
        next(iter(open_data(npz(**arrays)).train.batches(Want((8, 8), 8, 2))))
    read = [
        next(iter(open_data(npz(f"?layout={layout}", **arrays)).train.batches(Want((8, 8), 8, 2))))[0]
        for layout in ("nchw", "nhwc")
    ]
    assert torch.equal(read[1], read[0].permute(0, 3, 1, 2))
    with pytest.raises(DataError, match="layout=nwhc is none\n  hint: nhwc where the channels come last"):
        open_data(npz("?layout=nwhc", **arrays))


def test_arrays_in_rows_are_read_the_same_way() -> None:
    bands = np.random.default_rng(0).integers(0, 255, (12, 9, 7), dtype=np.uint8)
    want = Want((9, 7), 12, 1)
    for array in (bands, bands.transpose(1, 2, 0), bands.astype(np.float32) / 255):
        assert torch.equal(decode(array, want, 0), torch.from_numpy(bands))
    grey = decode(bands[0], Want((9, 7), 3, 1), 0)
    assert torch.equal(grey, torch.from_numpy(bands[:1]).expand(3, -1, -1))
    four = bands[:4].copy()
    four[3] = 0  # no alpha: what stands beside it stays
    assert torch.equal(decode(four, Want((9, 7), 4, 1), 0), torch.from_numpy(four))
    with pytest.raises(DataError, match="the images have 4 channels, the network takes 3"):
        decode(four, Want((9, 7), 3, 1), 0)


# --- labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(20, -1), r"labels: none of the 20 images has a label: the label -1 is no class.* in row 0"),
        (np.where(np.arange(20) == 7, -1, LABELS), r"1 is wrong\n  .*labels\[7\]: the label -1 is no class"),
        (np.array(["a", "b"] * 10), r"labels is <U1\[20\]; .*\n  hint: names, labels = np\.unique"),
        (LABELS + 0.5, r"labels is float64\[20\]; labels are one row of whole numbers"),
        (LABELS[:19], r"images is \[20, 1, 6, 5\] with 19 labels"),
        (np.where(np.arange(20) == 7, 10**7, LABELS), r"labels\[7\]: the label 10000000 of 1000000 classes"),
    ],
)
def test_labels_that_are_none_are_told_at_once(npz: Npz, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(npz(images=(RAMP * 255).astype(np.uint8), labels=labels))


def test_labels_that_are_none_are_left_out_if_wanted(npz: Npz) -> None:
    images = (RAMP * 255).astype(np.uint8)
    source = npz(images=images, labels=np.where(np.arange(20) < 10, -1, LABELS))
    with pytest.raises(DataError, match=r"10 are wrong\n(  .*\n){5}  \.\.\. and 5 more\n  hint: "):
        open_data(source)
    data = open_data(source, skip_broken=True)
    assert ([len(part) for part in data.parts.values()], len(data.problems)) == ([6, 2, 2], 10)


def test_an_archive_may_name_its_classes(npz: Npz) -> None:
    images = (RAMP * 255).astype(np.uint8)
    data = open_data(npz(images=images, labels=LABELS, classes=np.array(["cat", "dog"])))
    assert (data.classes, data.named) == (("cat", "dog"), True)
    assert not open_data(npz(images=images, labels=LABELS)).named
    with pytest.raises(DataError, match=r"labels\[1\]: the label 2 of 2 classes"):
        open_data(npz(images=images, labels=LABELS * 2, classes=np.array(["cat", "dog"])))
    with pytest.raises(DataError, match="classes is int64"):
        open_data(npz(images=images, labels=LABELS, classes=np.arange(2)))


def test_labels_of_images_in_memory_are_looked_at(net: Any, data: Any, fast: Any, tmp_path: Path) -> None:
    bad = TensorSplit(data.train.images_BCHW, torch.where(torch.arange(72) == 5, 3, data.train.labels_B))
    for wrong in (dataclasses.replace(data, train=bad), dataclasses.replace(data, val=bad)):
        with pytest.raises(DataError, match=r"stripes: 1 is wrong\n  (train|val), image 5: the label 3 of 3 classes"):
            fit(net, wrong, fast, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="72 images have 71 labels"):
        TensorSplit(data.train.images_BCHW, data.train.labels_B[:71])


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"cannot read .*x\.npz: a pipe, not a file"):
        open_data(f"npz:{tmp_path / 'x.npz'}")


# --- everything read once


def test_what_is_wrong_is_listed(folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = folder("train/a", "train/b", "val/a", "val/b", images=5)
    assert main(["data", "check", str(root), "--workers", "0"]) == 0
    assert "2 classes, 8 images to train on, 2 to choose by, 10 to test on; nothing is wrong" in capsys.readouterr().out
    (root / "train" / "a" / "0.jpg").write_text("no image")
    (root / "train" / "a" / "gone.png").symlink_to("nowhere")
    (root / "val" / "b" / "same.png").write_bytes((root / "train" / "b" / "1.png").read_bytes())
    (root / "train" / "b" / "other.png").write_bytes((root / "train" / "a" / "1.png").read_bytes())
    Image.new("L", (3, 40), 1).save(root / "train" / "b" / "tiny.png")
    (root / "val" / "b" / "list.txt").write_text("x")
    expected = [
        f"{root}/train/a/gone.png: a link to nothing",
        f"{root}/train/a/0.jpg: is not an image that can be read",
        f"{root}/train/b/other.png: the same image as {root}/train/a/1.png (train) under another label: "
        "'a' there, 'b' here",
        f"{root}/train/b/tiny.png: the image is tiny: 3 x 40",
        f"{root}/val/b/same.png: the same image as {root}/train/b/1.png, which is trained on",
        "note: 1 files that are no images are left out (.txt 1)",
        "note: 1 images are of one colour",
        f"imagefolder:{root}?test=none: 2 classes, 12 images to train on, 11 to choose by; 5 wrong",
    ]
    assert main(["data", "check", f"imagefolder:{root}?test=none", "--workers", "1"]) == 1
    assert capsys.readouterr().out.splitlines() == expected
    assert main(["data", "check", f"imagefolder:{root}?test=none", "--workers", "0", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [f"{p['where']}: {p['reason']}" for p in found["problems"]] == expected[:5]
    assert found["images"] == {"train": 12, "val": 11}


def test_classes_without_images_are_listed(npz: Npz) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 6, 5), dtype=np.uint8)
    found = check_data(npz(images=images, labels=LABELS * 2))
    assert [str(problem) for problem in found.problems] == ["class '1': no image to train on"]
    assert found.notes == ("1 classes have no image to choose by: 1", "1 classes have no image to test on: 1")


def test_commands_leave_out_what_is_broken(
    net: Any, folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder("a", "b", images=6)
    (root / "a" / "1.png").write_bytes(b"")
    spec = tmp_path / "net.yaml"
    spec.write_text(json.dumps({**net, "input": {"channels": 3, "size": 8}}))
    data = ["--data", f"imagefolder:{root}?test=none"]
    train = ["train", str(spec), *data, "--epochs", "1", "--recipe-set", "batch_size=4", "--recipe-set", "workers=0"]
    assert main([*train, "-o", str(tmp_path / "whole")]) == 1
    assert "a/1.png is empty" in capsys.readouterr().err
    assert main([*train, "-o", str(tmp_path / "run"), "--skip-broken"]) == 0
    assert f"warning: imagefolder:{root}?test=none: 1 broken images or labels are left out" in capsys.readouterr().err
    weights = ["--weights", str(tmp_path / "run" / "model.safetensors")]
    assert main(["eval", str(tmp_path / "run" / "spec.yaml"), *data, *weights, "--skip-broken", "--json"]) == 0


def test_a_search_leaves_out_what_is_broken(net: Any, folder: Callable[..., Path]) -> None:
    from blockforge.search.objectives.scores.train import Train

    root = folder("a", "b", images=6)
    (root / "a" / "1.png").write_bytes(b"")
    objective = Train(data=f"imagefolder:{root}?skip_broken=true&test=none", epochs=1)
    assert objective(bf.compile({**net, "input": {"channels": 3, "size": 8}}))["train"] >= 0


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--help"]) == 0
    assert "Examples:\n    blockforge data check" in capsys.readouterr().out
