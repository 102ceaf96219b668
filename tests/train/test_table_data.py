"""Data sets of Hugging Face's `datasets`, from folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blockforge.train import Data, DataError, check_data, fit, open_data
from blockforge.train.data import Want
from blockforge.train.images import StreamSplit

WANT = Want((16, 12), 3, 4)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a dataset with splits of so many images, in the library's own form or as parquet files."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def write(parquet: bool = False, named: bool = True, **splits: int) -> Path:
        label = datasets.ClassLabel(names=["no", "yes"]) if named else datasets.Value("int64")
        features = datasets.Features({"picture": datasets.Image(), "label": label})
        made = {}
        for name, count in splits.items():
            images = [Image.new("RGB", (10 + i, 9), (i * 20 % 255, 0, 0)) for i in range(count)]
            rows = {"picture": images, "label": [i % 2 for i in range(count)]}
            made[name] = datasets.Dataset.from_dict(rows, features=features)
        folder = tmp_path / "table"
        if not parquet:
            datasets.DatasetDict(made).save_to_disk(str(folder))
        else:
            folder.mkdir()
            for name, part in made.items():
                part.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
        return folder

    return write


@pytest.mark.parametrize("parquet", [False, True])
def test_tables(table: Callable[..., Path], parquet: bool) -> None:
    data = open_data(f"hf:{table(parquet, train=10, test=4)}")
    assert (data.classes, [len(part) for part in data.parts.values()]) == (("no", "yes"), [8, 2, 4])
    images, labels = next(iter(data.part("test").batches(WANT)))
    assert (images.shape, labels.tolist()) == ((4, 3, 16, 12), [0, 1, 0, 1])


def test_a_table_of_one_split_is_split(table: Callable[..., Path]) -> None:
    data = open_data(f"hf:{table(train=20, named=False)}?val=0.2&test=0.1&label=label")
    assert (data.classes, [len(part) for part in data.parts.values()]) == (("0", "1"), [14, 4, 2])


def test_a_stream_is_shared_out_shuffled_and_goes_on(table: Callable[..., Path], net: Any, fast: Any) -> None:
    data = open_data(f"hf:{table(train=13, validation=5)}?streaming=true")
    assert (len(data.train), len(data.val)) == (13, 5)

    def seen(split: Any, **changes: Any) -> list[torch.Tensor]:
        return [images for images, _ in split.batches(Want((8, 8), 3, **{"batch_size": 2, **changes}))]

    whole = seen(data.train, shuffle=True)
    assert len(whole) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], seen(data.train, shuffle=True, start=2), strict=True))
    assert not torch.equal(torch.cat(whole), torch.cat(seen(data.train, shuffle=True, epoch=1)))
    assert sum(len(x) for r in (0, 1) for x in seen(data.val, rank=r, world=2)) == 5
    spec = {**net, "input": {"channels": 3, "size": 8}}
    assert fit(spec, data, {**fast, "batch_size": 4}).history[-1].steps == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?val=tets", r"no split 'tets' \(val\)\n  hint: did you mean 'test'"),
        ("?image=pictur", r"no column 'pictur'\n  hint: did you mean 'picture'"),
        ("?imag=picture", r"hf has no option 'imag'\n  hint: did you mean 'image'"),
        ("?streaming=true&val=0.5", r"no images to choose by, and none can be cut from a stream\n  hint: \?val=SPLIT"),
    ],
)
def test_tables_that_do_not_fit(table: Callable[..., Path], options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"hf:{table(train=4, test=4)}{options}")


def test_a_stream_that_is_shorter_than_it_says(net: Any, data: Any, fast: Any) -> None:
    images = [(Image.new("L", (8, 8)), i % 3) for i in range(40)]
    short = Data("short", data.classes, StreamSplit(lambda want, first: images[first:], 72), data.val)
    with pytest.raises(DataError, match=r"short gave 2 batches less than its 72 images should"):
        fit(net, short, fast)


def test_a_folder_that_is_no_table(table: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"datasets cannot load '.*nothing': "):
        open_data(f"hf:{tmp_path / 'nothing'}")


def test_tables_are_told_apart_by_their_labels(table: Callable[..., Path]) -> None:
    data = open_data(f"hf:{table(train=10, test=4)}")
    assert data.train.digest() != data.val.digest()
    assert open_data(f"hf:{table(train=10, test=4)}").identity() == data.identity()


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., str]:
    """Writes a dataset from columns of each split, with features that are given."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def write(features: dict[str, Any], **splits: dict[str, list[Any]]) -> str:
        made = {k: datasets.Dataset.from_dict(v, features=datasets.Features(features)) for k, v in splits.items()}
        datasets.DatasetDict(made).save_to_disk(str(tmp_path / "rows"))
        return f"hf:{tmp_path / 'rows'}"

    return write


def _pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(count)
    return [Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "train", "test", "message"),
    [
        ("names", [0, 1] * 4, [-1] * 4, r"split test: none of the 4 images has a label: the label -1 is no class"),
        ("int64", [0, 1, -1, 1] * 2, [0, 1, 5, 0], r"3 are wrong\n  row 2 of .*split train: the label -1.*\n"),
        ("int64", [0, 1, 0, 1] * 2, [0, 1, 5, 0], r"1 is wrong\n  row 2 of .*split test: the label 5 of 2 classes"),
        ("int64", [0, None, 0, 1] * 2, [0, 1, 1, 0], r"2 are wrong\n  row 1 of .*split train: no label\n"),
        ("float32", [0.5, 1.5] * 4, [0.5] * 4, r"'label' of .* holds no class numbers"),
        ("string", ["a", "b"] * 4, ["a"] * 4, r"'label' of .* holds no class numbers\n  hint: .*class_encode_column"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_labels_of_tables_are_looked_at_before_the_first_step(
    rows: Callable[..., str], kind: str, train: list[Any], test: list[Any], message: str, streaming: bool
) -> None:
    import datasets

    label = datasets.ClassLabel(names=["no", "yes"]) if kind == "names" else datasets.Value(kind)
    features = {"image": datasets.Image(), "label": label}
    name = rows(features, train={"image": _pictures(8), "label": train}, test={"image": _pictures(4), "label": test})
    if streaming:
        name, message = f"{name}?streaming=true&classes=2", "in row|label"
    with pytest.raises(DataError, match=message):
        open_data(name)


def test_a_table_of_16_bit_and_of_many_channels(rows: Callable[..., str]) -> None:
    import datasets

    ramp = np.linspace(0, 65535, 81).round().astype(np.uint16).reshape(9, 9)
    images = {"image": [Image.fromarray(ramp)] * 10, "label": [0, 1] * 5}
    data = open_data(rows({"image": datasets.Image(), "label": datasets.Value("int64")}, train=images))
    read = next(iter(data.train.batches(Want((9, 9), 1, 2))))[0][0, 0]
    assert torch.equal(read, torch.from_numpy((ramp / 257).round()).to(torch.uint8))


def test_a_table_of_arrays(rows: Callable[..., str]) -> None:
    import datasets

    bands = np.random.default_rng(0).integers(0, 255, (10, 9, 9, 12), dtype=np.uint8)
    kind = datasets.Array3D((9, 9, 12), "uint8")
    name = rows({"image": kind, "label": datasets.Value("int64")}, train={"image": bands, "label": [0, 1] * 5})
    data = open_data(f"{name}?image=image")
    read = torch.cat([next(iter(part.batches(Want((9, 9), 12, 10))))[0] for part in data.parts.values()])
    assert sorted(read.flatten(1).tolist()) == sorted(bands.transpose(0, 3, 1, 2).reshape(10, -1).tolist())


def test_rows_without_an_image_are_named_and_may_be_left_out(rows: Callable[..., str]) -> None:
    import datasets

    images = [*_pictures(9), None]
    split = {"image": images, "label": [0, 1] * 5}
    name = rows({"image": datasets.Image(), "label": datasets.Value("int64")}, train=split, test=split)
    with pytest.raises(DataError, match=r"2 are wrong\n  row 9 of .*split train: there is no image"):
        open_data(name)
    data = open_data(f"{name}?skip_broken=true")
    assert [len(part) for part in data.parts.values()] == [7, 2, 9]
    assert [problem.reason for problem in check_data(name, workers=0).problems[:2]] == ["there is no image"] * 2


def test_splits_of_other_classes_are_refused(rows: Callable[..., str], tmp_path: Path) -> None:
    import datasets

    made = {}
    for split, names in (("train", ["a", "b"]), ("test", ["b", "a"])):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        made[split] = datasets.Dataset.from_dict({"image": _pictures(4), "label": [0, 1] * 2}, features=features)
        made[split].save_to_disk(str(tmp_path / "other" / split))
    (tmp_path / "other" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"splits train and test of .* have other classes, or in another order"):
        open_data(f"hf:{tmp_path / 'other'}")
