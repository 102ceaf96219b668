"""What tells data from other data: a run's identity holds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blockforge.train import open_data
from blockforge.train.data import digest_of


def test_a_moved_folder_is_the_same_data(folder: Callable[..., Path], tmp_path: Path) -> None:
    before = open_data(f"imagefolder:{folder('a', 'b', images=6)}?test=none").identity()
    assert (before["classes"], before["train_images"], before["val_images"]) == (["a", "b"], 10, 2)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    assert open_data(f"imagefolder:{tmp_path / 'elsewhere'}?test=none").identity() == before


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "relabelled", "held out"])
def test_a_changed_folder_is_other_data(folder: Callable[..., Path], change: str) -> None:
    root = folder("train/a", "train/b", "val/a", "val/b", images=6)
    before = open_data(f"imagefolder:{root}?test=none").identity()
    one = root / ("val" if change == "held out" else "train") / "a" / "0.jpg"
    if change == "more":
        shutil.copy(one, one.with_name("more.jpg"))
    elif change == "renamed":
        one.rename(one.with_name("renamed.jpg"))
    elif change == "relabelled":
        one.rename(root / "train" / "b" / "from_a.jpg")
    else:
        one.unlink()
    assert open_data(f"imagefolder:{root}?test=none").identity() != before


def test_arrays_are_told_apart_by_values_and_labels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4), dtype=np.uint8)

    def identity(**arrays: Any) -> dict[str, Any]:
        np.savez(tmp_path / "x.npz", **arrays)
        return open_data(f"npz:{tmp_path / 'x.npz'}").identity()

    labels = np.arange(20) % 2
    before = identity(images=images, labels=labels)
    assert identity(images=images.copy(), labels=labels) == before
    other = images.copy()
    other[3, 0, 0] ^= 1
    assert identity(images=other, labels=labels)["train_digest"] != before["train_digest"]
    assert identity(images=images, labels=1 - labels)["train_digest"] != before["train_digest"]
    assert open_data("digits?val=0.1").identity() != open_data("digits").identity()


def test_a_digest_keeps_its_parts_apart() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("\udcff") != digest_of("?")
