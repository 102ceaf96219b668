"""A network and data that a test trains in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blockforge.train.data import Data
from blockforge.train.tensor_split import TensorSplit

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "tiny",
    "input": {"channels": 1, "size": 8},
    "defaults": {"norm": "layer_norm"},
    "drop_path": 0.1,
    "blocks": {"conv": [{"op": "dwconv", "kernel_size": 3}, {"op": "mlp", "mlp_ratio": 2}]},
    "stem": {"op": "patch_embed", "patch": 2, "norm": "batch_norm"},
    "stages": [{"dim": 16, "depth": 2, "layers": "conv"}],
    "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
}
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.01, "weight_decay": 0.05}


@pytest.fixture
def net() -> dict[str, Any]:
    """A spec for grey images of 8x8."""
    return NET


@pytest.fixture
def fast() -> dict[str, Any]:
    """A recipe of two epochs."""
    return dict(FAST)


@pytest.fixture(scope="session")
def data() -> Data:
    """96 grey images of 8x8 in three classes that can be told apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    images = torch.randint(0, 100, (96, 1, 8, 8), generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 2 * label : 2 * label + 2] += 120
    bytes_ = images.to(torch.uint8)
    return Data(
        "stripes", ("a", "b", "c"), TensorSplit(bytes_[:72], labels[:72]), TensorSplit(bytes_[72:], labels[72:])
    )


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder("train/cat", "train/dog", images=3)`: image files of several sizes and modes in folders."""

    def make(*classes: str, images: int = 4) -> Path:
        root = tmp_path / "images"
        for c, name in enumerate(classes):
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(images):
                rng = np.random.default_rng(100 * c + i)
                array = rng.integers(0, 255, (20 + 3 * i, 24, 3), dtype=np.uint8)
                image = Image.fromarray(array)
                image = image.convert("L") if i % 3 == 2 else image
                image.save(root / name / f"{i}.{'png' if i % 2 else 'jpg'}")
        return root

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
