"""Many JPEG images in one `.npz` file: the bytes of all behind each other, and where each begins.

Arrays: `classes`, names by label; of each part, `train` and if there are such `val` and `test`, `train_jpeg` (uint8),
`train_offsets` (int64, one more than images: image i is the bytes from `offsets[i]` to `offsets[i + 1]`) and
`train_labels`.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from blockforge.console.progress import counting
from blockforge.errors import DataError
from blockforge.train.data import Opened, Problem, Split, digest_of
from blockforge.train.images import ImageSplit
from blockforge.train.labels import MOST_CLASSES, wrong_labels
from blockforge.train.npz import class_names, read_npz
from blockforge.train.opening import Options, source
from blockforge.train.pixels import as_meant, first_line
from blockforge.train.tensor_split import TensorSplit

_CIFAR10 = "cifar10_jpeg.npz"
_FOLDERS = ("data", "../data", "../shared/data")
_ENVIRONMENT = "BLOCKFORGE_DATA"
_MANY = 5_000
"""Images, beyond which one waits for their decoding long enough to want to know."""
_IN_MEMORY = 2**30
"""Bytes of images of one size that are decoded once, and kept: a JPEG of a few pixels takes longer to open than a
training step does."""


class JpegReader:
    """Images of a file, with their labels.

    Args:
        jpeg, offsets, labels: see the top of this page.
        name: of the file and the part, for errors.
        rows: which images.
    """

    def __init__(self, jpeg: Any, offsets: Any, labels: Any, name: str, rows: Sequence[int]) -> None:
        self.jpeg, self.offsets, self.labels_, self.title, self.rows = jpeg, offsets, labels, name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[index]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow: what matters is raised
                with Image.open(io.BytesIO(self._bytes(row)), formats=["JPEG"]) as image:
                    return as_meant(image), int(self.labels_[row])
        except Exception as e:  # decoders raise a dozen kinds for a broken image
            raise DataError(f"cannot read {self.name(index)}: {first_line(e)}") from None

    def name(self, index: int) -> str:
        return f"image {self.rows[index]} of {self.title}"

    def labels(self) -> list[int]:
        return [int(self.labels_[row]) for row in self.rows]

    def only(self, rows: Sequence[int]) -> JpegReader:
        return JpegReader(self.jpeg, self.offsets, self.labels_, self.title, [self.rows[row] for row in rows])

    def digest(self) -> str:
        parts = ((self._bytes(row), self.labels_[row].tobytes()) for row in self.rows)
        return digest_of(*(part for pair in parts for part in pair))

    def _bytes(self, row: int) -> bytes:
        raw: bytes = self.jpeg[self.offsets[row] : self.offsets[row + 1]].tobytes()
        return raw


@source("cifar10", "cifar10")
def _cifar10(rest: str, options: Options) -> Opened:
    """CIFAR-10, 60,000 images of 32x32 (Krizhevsky, 2009), from a file `cifar10_jpeg.npz`."""
    own = os.environ.get(_ENVIRONMENT)
    folders = [own] if own else list(_FOLDERS)
    path = next((p for folder in folders if (p := Path(folder, _CIFAR10)).is_file()), None)
    if path is None:
        hint = f"{_ENVIRONMENT}=FOLDER says where it is; docs/training.md says how such a file is made"
        raise DataError(f"there is no file {_CIFAR10} in {', '.join(folders)}\n  hint: {hint}")
    return _jpegs(str(path), options)


@source("jpegs", "jpegs:FILE")
def _jpegs(rest: str, options: Options) -> Opened:
    """JPEG images in one .npz file: `classes`, `train_jpeg`, `train_offsets`, `train_labels`; also of `val`, `test`."""
    arrays = read_npz(rest)
    if "train_jpeg" not in arrays or "classes" not in arrays:
        held = ", ".join(list(arrays)[:20]) or "nothing"
        raise DataError(f"{rest} holds no classes and train_jpeg\n  hint: it holds {held}")
    classes = class_names(arrays["classes"], rest)
    problems: list[Problem] = []
    parts: dict[str, Split] = {}
    for part in ("train", "val", "test"):
        if f"{part}_jpeg" in arrays:
            parts[part] = _in_memory(_reader(arrays, part, rest, len(classes), problems))
    return Opened.of(classes, parts, True, problems)


def _reader(arrays: dict[str, Any], part: str, path: str, classes: int, problems: list[Problem]) -> JpegReader:
    """The images of a part that have a label. Raises: DataError if its arrays do not fit together."""
    names = [f"{part}_{what}" for what in ("jpeg", "offsets", "labels")]
    if lacking := [name for name in names if name not in arrays]:
        raise DataError(f"{path} has {part}_jpeg and no {' and no '.join(lacking)}")
    jpeg, offsets, labels = (arrays[name] for name in names)
    numbers = all(a.ndim == 1 and a.dtype.kind in "iu" for a in (offsets, labels))
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8 or not numbers:
        raise DataError(f"{path}: {names[0]} is a row of bytes (uint8), {names[1]} and {names[2]} are of whole numbers")
    if len(offsets) != len(labels) + 1 or not len(labels):
        raise DataError(f"{path}: {len(labels)} {names[2]} need {len(labels) + 1} {names[1]}, not {len(offsets)}")
    if offsets[0] < 0 or offsets[-1] > len(jpeg) or (np.diff(offsets.astype(np.int64)) < 0).any():
        raise DataError(f"{path}: {names[1]} do not rise from 0 to the {len(jpeg)} bytes of {names[0]}")
    wrong = dict(wrong_labels(labels, min(classes, MOST_CLASSES)))
    if len(wrong) == len(labels):
        raise DataError(f"{path}: none of the {len(labels)} images of {part} has a label: {wrong[0]} in row 0")
    problems += [Problem(f"{path}: {names[2]}[{row}]", reason) for row, reason in wrong.items()]
    return JpegReader(jpeg, offsets, labels, f"{path}, {part}", [r for r in range(len(labels)) if r not in wrong])


def _in_memory(reader: JpegReader) -> Split:
    """The images decoded, where all are of one size and few enough; else decoded as they are needed."""
    images: list[Any] = []
    try:
        with counting(f"decode {reader.title}", len(reader), len(reader) > _MANY) as advance:
            for i in range(len(reader)):
                images.append(np.asarray(reader(i)[0]))
                if images[-1].shape != images[0].shape or images[0].nbytes * len(reader) > _IN_MEMORY:
                    return ImageSplit(reader)
                advance()
    except DataError:
        return ImageSplit(reader)  # where each image that is broken is told
    stacked = torch.from_numpy(np.stack(images))
    chw = stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)
    return TensorSplit(chw.contiguous(), torch.tensor(reader.labels()))
