"""Every data set has images to train on, to choose by and for the last word, and no image is in two of them."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from blockforge.train import Data, DataError, check_data, evaluate, fit, open_data
from blockforge.train.cutting import MOST, Cuts, cut, with_parts
from blockforge.train.data import Batch, Opened, Want
from blockforge.train.images import ImageSplit
from blockforge.train.tensor_split import TensorSplit


@given(st.lists(st.integers(0, 3), max_size=60), st.floats(0.01, 0.6), st.integers(0, 5))
def test_a_cut_takes_the_same_share_of_each_class(labels: list[int], share: float, seed: int) -> None:
    kept, held = cut(labels, share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (kept, held) == (sorted(kept), sorted(held)) == cut(labels, share, seed)
    for label in set(labels):
        count, taken = labels.count(label), sum(labels[row] == label for row in held)
        assert taken < count
        assert taken or count < 3
        assert abs(taken - count * share) <= 0.5 or taken in (1, count - 1)


def test_another_seed_cuts_others() -> None:
    assert len({tuple(cut([0, 1] * 50, 0.2, seed)[1]) for seed in range(20)}) == 20


def _numbered(count: int) -> TensorSplit:
    """Images that are told apart by their value."""
    values = torch.arange(count, dtype=torch.float32) / max(count, 1)
    return TensorSplit(values.reshape(-1, 1, 1, 1), torch.arange(count) % 2)


PARTS: list[tuple[dict[str, int], str, dict[str, int]]] = [
    ({}, "", {"train": 60, "val": 20, "test": 20}),
    ({}, "test=none", {"train": 80, "val": 20}),
    ({}, "val=0.1&test=0.3", {"train": 60, "val": 10, "test": 30}),
    ({"test": 7}, "", {"train": 80, "val": 20, "test": 7}),
    ({"val": 7}, "", {"train": 80, "val": 20, "test": 7}),
    ({"val": 7}, "test=none", {"train": 100, "val": 7}),
    ({"val": 7}, "test=0.1", {"train": 90, "val": 7, "test": 10}),
    ({"val": 7}, "val=0.1", {"train": 90, "val": 10, "test": 7}),
    ({"val": 7}, "val=named", {"train": 80, "val": 7, "test": 20}),
    ({"val": 7, "test": 5}, "", {"train": 100, "val": 7, "test": 5}),
    ({"val": 7, "test": 5}, "val=0.1", {"train": 90, "val": 10, "test": 5}),
    ({"val": 7, "test": 5}, "test=0.1", {"train": 90, "val": 7, "test": 10}),
    ({}, "train=0.5", {"train": 30, "val": 20, "test": 20}),
    ({"val": 7}, "train=named", {"train": 80, "val": 20, "test": 7}),
]


@pytest.mark.parametrize(("own", "options", "expected"), PARTS)
def test_what_is_missing_is_cut_from_the_training_images(
    own: dict[str, int], options: str, expected: dict[str, int]
) -> None:
    given = dict(pair.split("=") for pair in options.split("&") if pair)
    beside = {name: _numbered(count) for name, count in own.items()}
    opened = Opened(["a", "b"], _numbered(100), **beside)
    parts = with_parts(opened, Cuts.of(given, ("val", "test", "train")), "x:y")
    assert {n: len(p) for n in ("train", "val", "test") if (p := getattr(parts, n)) is not None} == expected
    cuts = [p for n in ("train", "val", "test") if isinstance(p := getattr(parts, n), TensorSplit)]
    values = [v for part in cuts if part not in beside.values() for v in part.images_BCHW.flatten().tolist()]
    assert len(values) == len(set(values))


def test_large_data_lose_no_fifth() -> None:
    opened = with_parts(Opened(["a", "b"], _numbered(10 * MOST)), Cuts(), "x")
    assert [len(part) for part in (opened.train, opened.val, opened.test) if part is not None] == [8 * MOST, MOST, MOST]


def test_the_draw_is_the_same_in_every_process_and_another_with_another_seed() -> None:
    def digests(name: str) -> list[str]:
        return [part.digest() for part in open_data(name).parts.values()]

    assert digests("digits") == digests("digits?val=0.2")
    assert all(a != b for a, b in zip(digests("digits"), digests("digits?split_seed=1"), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("split_seed=x", r"split_seed=x is no seed\n  hint: as in \?split_seed=1"),
        ("split_seed=-1", "split_seed=-1 is no seed"),
        ("val=0", r"val=0 is not a share of the images\n  hint: as in \?val=0.1"),
        ("val=1", "val=1 is not a share"),
        ("val=none", "val=none is not a share"),
        ("test=0.0", "test=0.0 is not a share"),
        ("test=own", "test=own is not a share"),
        ("val=0.99&test=0.99", "val=0.99 and test=0.99 leave nothing to train on"),
    ],
)
def test_options_that_say_no_share(options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"digits?{options}")


class _Foreign:
    """A plugin's images, of which nothing can be cut."""

    crops = False

    def __len__(self) -> int:
        return 4

    def batches(self, want: Want) -> Iterator[Batch]:
        yield torch.zeros(4, want.channels, *want.size), torch.tensor([0, 1, 0, 1])

    def statistics(self, channels: int | None = None) -> None:
        return None

    def digest(self) -> str:
        return "foreign"


def test_images_that_cannot_be_cut_stay_as_they_are() -> None:
    split = _Foreign()
    whole = with_parts(Opened(["a", "b"], split, split), Cuts(), "x")
    assert (whole.val, whole.test) == (split, None)
    with pytest.raises(DataError, match="no images to choose by"):
        with_parts(Opened(["a", "b"], split), Cuts(), "x")


def test_training_sees_no_test_image_and_evaluation_takes_them(net: Any, data: Data, fast: Any) -> None:
    class Untouched(TensorSplit):
        def batches(self, want: Want) -> Iterator[Batch]:
            raise AssertionError("a test image was looked at")

    x, y = data.train.images_BCHW, data.train.labels_B  # type: ignore[attr-defined]
    held = Data("held", data.classes, data.train, data.val, test=Untouched(x, y))
    result = fit(net, held, fast, epochs=1)
    own = Data("own", data.classes, data.train, data.val, test=TensorSplit(x[:7], y[:7]))
    counts = {split: evaluate(result.model, own, recipe=fast, split=split).images for split in (None, "val", "test")}
    assert counts == {None: 7, "val": len(data.val), "test": 7}
    with pytest.raises(DataError, match=r"own has no part 'tset'\n  hint: train, val, test"):
        evaluate(result.model, own, split="tset")
    assert own.identity() == held.identity()


# --- IDX files


def _idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    head = bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx(tmp_path: Path) -> Callable[..., str]:
    """Writes a folder of IDX files, with as many images in each part."""

    def write(suffix: str = ".gz", **parts: int) -> str:
        for part, count in parts.items():
            images = np.random.default_rng(count).integers(0, 255, (count, 6, 5), dtype=np.uint8)
            _idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
            _idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8) % 2)
        return f"idx:{tmp_path}"

    return write


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("held", ["t10k", "test"])
def test_idx_files(idx: Callable[..., str], suffix: str, held: str) -> None:
    data = open_data(idx(suffix, train=20, **{held: 6}))
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 16, "val": 4, "test": 6}
    assert isinstance(data.test, TensorSplit)
    expected = np.random.default_rng(6).integers(0, 255, (6, 6, 5), dtype=np.uint8)
    assert torch.equal(data.test.images_BCHW[:, 0], torch.from_numpy(expected))
    assert (data.classes, data.named) == (("0", "1"), False)


def test_idx_files_of_shorts_and_floats(idx: Callable[..., str], tmp_path: Path) -> None:
    idx("", train=6)
    _idx(tmp_path / "train-images-idx3-ubyte", np.arange(6 * 30, dtype=np.int16).reshape(6, 6, 5), 11)
    assert open_data(f"idx:{tmp_path}").train.statistics() is not None
    _idx(tmp_path / "train-images-idx3-ubyte", np.full((6, 6, 5), 0.5), 14)
    assert open_data(f"idx:{tmp_path}").train.statistics() == ([0.5], [pytest.approx(0.001)])


BROKEN: dict[str, tuple[bytes, str]] = {
    "no head": (b"x", "is no IDX file"),
    "another kind": (b"\0\0\7\1\0\0\0\6" + b"\0" * 6, "is no IDX file"),
    "no axes": (b"\0\0\x08\0", "is no IDX file"),
    "short": (b"\0\0\x08\3" + struct.pack(">3I", 6, 6, 5) + b"\0" * 9, r"not as long as it says: \[6, 6, 5\]"),
    "long": (b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 5) + b"\0" * 9, r"not as long as it says: \[1, 1, 5\]"),
    "huge": (b"\0\0\x08\3" + struct.pack(">3I", 2**31, 2**31, 5), "from 1 byte to 8 GiB can be read"),
    "nothing": (b"\0\0\x08\3" + struct.pack(">3I", 0, 6, 5), "from 1 byte to 8 GiB can be read"),
    "cut head": (b"\0\0\x08\3\0\0", "cannot read"),
    "of another count": (
        b"\0\0\x08\3" + struct.pack(">3I", 1, 6, 5) + b"\0" * 30,
        r"images-idx3-ubyte is \[1, 1, 6, 5\] with 6 labels",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_idx_files_that_are_broken(idx: Callable[..., str], tmp_path: Path, content: bytes, message: str) -> None:
    name = idx("", train=6)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_data(name)


def test_folders_of_idx_files_that_lack_some(idx: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no IDX file of the train images\n  hint: names as train-images-idx3"):
        open_data(f"idx:{tmp_path}")
    name = idx(train=6, t10k=2)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has no IDX file of the test labels"):
        open_data(name)
    name = idx(train=6, t10k=2)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"cannot read .*: [Nn]ot a gzipped file"):
        open_data(name)
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match=r"several IDX files of the train images: "):
        open_data(name)


def _if_it_is_there(name: str) -> Data:
    try:
        return open_data(name)
    except DataError as e:
        pytest.skip(str(e).partition("\n")[0])


def test_fashion_mnist() -> None:
    data = _if_it_is_there("fashion")
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 50_000, "val": 10_000, "test": 10_000}
    assert isinstance(data.test, TensorSplit)
    assert torch.bincount(data.test.labels_B).tolist() == [1000] * 10
    assert data.classes[9] == "Ankle boot"
    assert data.test.labels()[0] == 9


# --- JPEG images in one file


def _jpeg(side: int, value: int, blue: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, blue)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def jpegs(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of JPEG images; what is given replaces its arrays."""

    def write(sides: int | list[int] = 8, count: int = 10, **replaced: Any) -> str:
        sizes = sides if isinstance(sides, list) else [sides] * count
        arrays: dict[str, Any] = {"classes": np.array(["cat", "dog"])}
        for part, blue in (("train", 30), ("test", 90)):
            images = [_jpeg(side, 20 * i, blue) for i, side in enumerate(sizes)]
            arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(images), np.uint8)
            arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, images)])
            arrays[f"{part}_labels"] = np.arange(len(sizes), dtype=np.uint8) % 2
        arrays = {k: v for k, v in {**arrays, **replaced}.items() if v is not None}
        np.savez(tmp_path / "x.npz", **arrays)
        return f"jpegs:{tmp_path / 'x.npz'}"

    return write


def test_jpegs_of_one_size_are_decoded_once_and_others_as_they_are_needed(jpegs: Callable[..., str]) -> None:
    same, other = open_data(jpegs()), open_data(jpegs([8, 9] * 5))
    for data, kind in ((same, TensorSplit), (other, ImageSplit)):
        assert {name: len(part) for name, part in data.parts.items()} == {"train": 8, "val": 2, "test": 10}
        assert all(isinstance(part, kind) for part in data.parts.values())
        images, labels = next(iter(data.part("test").batches(Want((8, 8), 3, 10))))
        assert labels.tolist() == [0, 1] * 5
        assert (images[:, 0, 4, 4].int() - torch.arange(10) * 20).abs().max() <= 3
        assert not check_data(data, workers=0).problems


def test_a_broken_jpeg_is_named_and_may_be_left_out(jpegs: Callable[..., str]) -> None:
    offsets = np.cumsum([0, *(len(_jpeg(8, 20 * i)) for i in range(10))])
    broken = np.frombuffer(b"".join(_jpeg(8, 20 * i) for i in range(10)), np.uint8).copy()
    broken[offsets[3] : offsets[3] + 30] = 0
    name = jpegs(test_jpeg=broken)
    assert [p.where for p in check_data(name, workers=0).problems] == [f"image 3 of {name[6:]}, test"]
    assert len(open_data(name, skip_broken=True).part("test")) == 9


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_jpeg": None}, r"holds no classes and train_jpeg\n  hint: it holds classes, train_offsets"),
        ({"classes": None}, "holds no classes and train_jpeg"),
        ({"test_offsets": None, "test_labels": None}, "has test_jpeg and no test_offsets and no test_labels"),
        ({"train_offsets": np.arange(4)}, "10 train_labels need 11 train_offsets, not 4"),
        ({"train_offsets": np.arange(11)[::-1].copy()}, "train_offsets do not rise from 0 to the .* bytes"),
        ({"train_offsets": np.arange(11) * 10**6}, "train_offsets do not rise"),
        ({"train_offsets": np.arange(11) - 1}, "train_offsets do not rise"),
        ({"train_jpeg": np.zeros(5)}, r"train_jpeg is a row of bytes \(uint8\)"),
        ({"train_labels": np.zeros(10)}, "are of whole numbers"),
        ({"train_labels": np.full(10, 2)}, r"none of the 10 images of train has a label: the label 2 of 2 classes"),
    ],
)
def test_files_of_jpegs_that_are_none(jpegs: Callable[..., str], replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(jpegs(**replaced))


def test_cifar10_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jpegs: Callable[..., str]) -> None:
    monkeypatch.setenv("BLOCKFORGE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"there is no file cifar10_jpeg\.npz in .*\n  hint: BLOCKFORGE_DATA=FOLDER"):
        open_data("cifar10")
    jpegs()
    (tmp_path / "x.npz").rename(tmp_path / "cifar10_jpeg.npz")
    assert len(open_data("cifar10").part(None)) == 10


@pytest.mark.slow
def test_cifar10() -> None:
    data = _if_it_is_there("cifar10")
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 40_000, "val": 10_000, "test": 10_000}
    assert isinstance(data.val, TensorSplit)
    assert torch.bincount(data.val.labels_B).tolist() == [1000] * 10
    assert data.val.images_BCHW.shape[1:] == (3, 32, 32)
