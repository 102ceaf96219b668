"""A small data set whose classes can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def stripes(folder: Path, count: int, side: int, apart: int, width: int) -> str:
    """Write grey images in three classes, told apart by the place of a bright stripe; give what `--data` calls them.

    Args:
        count: of images. side: of each. apart: rows from a class's stripe to the next one's. width: rows of a stripe.
    """
    labels = np.arange(count) % 3
    images = np.random.default_rng(0).integers(0, 100, (count, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[apart * label : apart * label + width] += 120
    np.savez(folder / "stripes.npz", images=images, labels=labels)
    return f"npz:{folder / 'stripes.npz'}"
