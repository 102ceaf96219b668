"""Where images come from, and what is said when they do not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blockforge.train import DataError, fit, open_data
from blockforge.train.data import Want
from blockforge.train.images import ImageSplit
from blockforge.train.tensor_split import TensorSplit

WANT = Want((16, 12), 3, 4)


def test_digits_and_mnist5k_are_real_and_split_evenly() -> None:
    digits, mnist = open_data("digits"), open_data("mnist5k?val=0.1")
    assert (sum(map(len, digits.parts.values())), len(digits.classes)) == (1797, 10)
    assert {name: len(part) for name, part in mnist.parts.items()} == {"train": 3500, "val": 500, "test": 1000}
    assert isinstance(mnist.val, TensorSplit)
    assert torch.bincount(mnist.val.labels_B).tolist() == [50] * 10
    assert mnist.val.images_BCHW.shape == (500, 1, 28, 28)
    assert digits.train.statistics()[0] == pytest.approx([0.305], abs=0.01)  # type: ignore[index]


def test_images_take_the_size_and_channels_that_are_wanted() -> None:
    digits = open_data("digits")
    images, labels = next(iter(digits.val.batches(WANT)))
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 16, 12), torch.uint8, torch.int64)
    assert torch.equal(images[:, 0], images[:, 2])


def test_epochs_are_shuffled_from_the_seed_and_go_on_where_they_stopped() -> None:
    split = TensorSplit(torch.arange(20, dtype=torch.uint8).reshape(20, 1, 1, 1), torch.arange(20))

    def seen(**changes: Any) -> list[list[int]]:
        want = Want((1, 1), 1, **{"batch_size": 4, "shuffle": True, **changes})
        return [labels.tolist() for _, labels in split.batches(want)]

    assert sorted(chain(*seen())) == list(range(20))
    assert seen() == seen() != seen(epoch=1)
    assert seen(seed=1) != seen()
    assert seen(start=3) == seen()[3:]
    parts = [seen(rank=r, world=2, batch_size=2) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == seen()
    assert sorted(chain(*(chain(*seen(shuffle=False, rank=r, world=3)) for r in range(3)))) == list(range(20))


def test_folders_of_images(folder: Callable[..., Path]) -> None:
    root = folder("train/cat", "train/dog", "val/cat", "val/dog", images=4)
    data = open_data(f"imagefolder:{root}?test=none")
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 8, 8)
    batches = list(data.val.batches(WANT))
    assert [b.shape for b, _ in batches] == [(4, 3, 16, 12)] * 2
    assert torch.cat([labels for _, labels in batches]).tolist() == [0] * 4 + [1] * 4
    assert data.train.statistics() is None


def test_one_folder_is_split(folder: Callable[..., Path]) -> None:
    data = open_data(f"imagefolder:{folder('a', 'b', images=6)}?val=0.5&test=none")
    assert (len(data.train), len(data.val)) == (6, 6)


def test_workers_and_the_way_back_change_no_crop(folder: Callable[..., Path]) -> None:
    split = open_data(f"imagefolder:{folder('a', 'b', images=6)}?test=none").train
    assert isinstance(split, ImageSplit)

    def seen(**changes: Any) -> list[torch.Tensor]:
        want = Want((16, 12), 3, 2, shuffle=True, crop=([0.2, 1.0], [0.75, 1.3]), **changes)
        return [images for images, _ in split.batches(want)]

    alone = seen()
    assert len(alone) == 5
    for other in (seen(workers=1), seen(start=0)):
        assert all(torch.equal(a, b) for a, b in zip(alone, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(alone[3:], seen(start=3), strict=True))
    assert not torch.equal(alone[0], seen(epoch=1)[0])


def test_a_network_is_trained_on_files(net: Any, fast: Any, folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder("a", "b", "c", images=6)
    recipe = {**fast, "crop": {"scale": [0.5, 1.0]}, "batch_size": 4, "workers": 0, "crop_pct": 0.9}
    spec = {**net, "input": {"channels": 3, "size": [8, 16]}}
    result = fit(spec, f"imagefolder:{root}?test=none", recipe, out=tmp_path / "run")
    assert len(result.history) == 2
    assert result.model.num_classes == 3


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    def write(**arrays: Any) -> str:
        np.savez(tmp_path / "data.npz", **arrays)
        return f"npz:{tmp_path / 'data.npz'}"

    return write


@pytest.mark.parametrize("shape", [(20, 6, 5), (20, 6, 5, 3), (20, 3, 6, 5)])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_arrays_in_every_layout(npz: Callable[..., str], shape: tuple[int, ...], kind: Any) -> None:
    images = np.random.default_rng(0).random(shape)
    images = (images * 255).astype(np.uint8) if kind is np.uint8 else images
    data = open_data(npz(images=images, labels=np.arange(20) % 2))
    assert isinstance(data.train, TensorSplit)
    assert data.train.images_BCHW.shape == (12, 1 if len(shape) == 3 else 3, 6, 5)
    assert next(iter(data.val.batches(WANT)))[0].shape == (4, 3, 16, 12)


def test_arrays_with_their_own_evaluation_images(npz: Callable[..., str]) -> None:
    x, y = np.zeros((9, 4, 4), np.uint8), np.arange(9) % 3
    own = {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4]}
    data = open_data(npz(**own))
    assert ([len(part) for part in data.parts.values()], data.classes) == ([6, 3, 4], ("0", "1", "2"))
    data = open_data(npz(**own, x_val=x[:5], y_val=y[:5]))
    assert [len(part) for part in data.parts.values()] == [9, 5, 4]


X, Y = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "names": (
        {"x_trian": X, "y_train": Y},
        r"neither x_train and y_train nor images.*\n  hint: it holds x_trian, y_train",
    ),
    "labels": (
        {"images": X, "labels": Y.astype(float)},
        r"labels is float64\[6\]; labels are one row of whole numbers",
    ),
    "count": ({"images": X, "labels": Y[:5]}, r"images is \[6, 1, 4, 4\] with 5 labels"),
    "range": ({"images": X + 300.0, "labels": Y}, r"images is float64, 300.0 to 300.0; use uint8, or floats in 0..1"),
    "nan": ({"images": X * np.nan, "labels": Y}, r"images is float64, nan to nan"),
    "flat": ({"images": X[:, 0], "labels": Y}, r"images is \[6, 4\] with 6 labels; images are N x H x W"),
    "one class": ({"images": X, "labels": Y * 0}, r"has 1 class; a classifier needs two"),
    "empty": ({"images": X[:0], "labels": Y[:0]}, r"labels is int64\[0\]"),
    "pickle": ({"images": np.array([{}]), "labels": Y}, r"holds pickled objects, which could run code"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_are_no_images(npz: Callable[..., str], case: str) -> None:
    arrays, message = BAD_ARRAYS[case]
    with pytest.raises(DataError, match=message):
        open_data(npz(**arrays))


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"cannot read .*x\.npz: "):
        open_data(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04broken", b"\x80\x04]q."])
def test_files_that_are_no_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*x\.npz: "):
        open_data(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"no data source 'digit'\n  hint: did you mean 'digits'\?"),
        ("digits:x", r"'digits:x' is not how this source is written\n  hint: digits"),
        ("imagefolder", r"is not how this source is written\n  hint: imagefolder:PATH"),
        ("digits?vall=0.1", r"digits has no option 'vall'\n  hint: did you mean 'val'"),
        ("digits?val=2", r"val=2 is not a share of the images\n  hint: as in \?val=0.1"),
        ("imagefolder:nowhere", r"there is no folder nowhere"),
        ("npz:nowhere.npz", r"there is no file nowhere\.npz"),
    ],
)
def test_names_that_are_no_data(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(name)


def test_a_folder_alone_is_told_its_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"hint: for a folder of images imagefolder:{tmp_path}"):
        open_data(str(tmp_path))


def test_folders_without_images(folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no folders; a class is a folder of images"):
        open_data(f"imagefolder:{tmp_path / 'empty'}?test=none")
    root = folder("train/a", "train/b")
    with pytest.raises(DataError, match=r"has a folder train but none of val, valid, validation, test"):
        open_data(f"imagefolder:{root}?test=none")
    folder("val/a", "val/bb")
    with pytest.raises(DataError, match=r"has the class 'bb', .*train has not\n  hint: did you mean 'b'"):
        open_data(f"imagefolder:{root}?test=none")
    (root / "train" / "bb").mkdir()
    with pytest.raises(DataError, match=r"train/bb holds no images\n  hint: files that end in"):
        open_data(f"imagefolder:{root}?test=none")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["text", "truncated"])
def test_broken_images_are_named(
    net: Any, fast: Any, folder: Callable[..., Path], workers: int, how: str, tmp_path: Path
) -> None:
    root = folder("a", "b", images=6)
    broken = root / "a" / "2.jpg"
    broken.write_bytes(b"no image" if how == "text" else broken.read_bytes()[:200])
    spec = {**net, "input": {"channels": 3, "size": 8}}
    recipe = {**fast, "batch_size": 2, "workers": workers}
    message = r"2\.jpg is not an image" if how == "text" else r"cannot read .*2\.jpg: "
    with pytest.raises(DataError, match=message) as e:
        fit(spec, f"imagefolder:{root}?test=none", recipe, out=tmp_path / "run")
    assert "Traceback" not in str(e.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_channels_that_cannot_be_made(net: Any, data: Any, fast: Any, tmp_path: Path) -> None:
    five = {**net, "input": {"channels": 5, "size": 8}}
    assert fit(five, data, fast, epochs=1).history  # grey is repeated
    images = TensorSplit(torch.zeros(6, 3, 4, 4, dtype=torch.uint8), torch.arange(6))
    with pytest.raises(DataError, match=r"have 3 channels, the network takes 2\n  hint: --set input.channels=3"):
        next(iter(images.batches(Want((4, 4), 2, 2))))
    assert next(iter(images.batches(Want((4, 4), 1, 2))))[0].shape == (2, 1, 4, 4)


def test_too_few_images_to_hold_some_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4) % 2)
    with pytest.raises(DataError, match="has no image to choose by"):
        open_data(f"npz:{tmp_path / 'few.npz'}")
