"""IDX files, the form of MNIST and its relatives: `train-images-idx3-ubyte.gz` and the like (LeCun, "The MNIST
database", section "file formats")."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from blockforge.errors import DataError
from blockforge.train.arrays import Named, of_arrays
from blockforge.train.data import Opened
from blockforge.train.opening import Options, source
from blockforge.train.pixels import first_line, not_a_file

_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts it."""
_CLOTHES = "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PARTS = {"train": ("train",), "test": ("t10k", "test"), "val": ("val", "validation")}
_MOST_BYTES = 2**33


@source("fashion", "fashion")
def _fashion(rest: str, options: Options) -> Opened:
    """Fashion-MNIST, 70,000 grey images of 28x28 (Xiao et al., 2017), of Debian's package dataset-fashion-mnist."""
    if not _FASHION.is_dir():
        hint = "apt install dataset-fashion-mnist; or idx:DIR, with the folder of its four files"
        raise DataError(f"Fashion-MNIST is not installed: there is no folder {_FASHION}\n  hint: {hint}")
    return _opened(_FASHION, _CLOTHES)


@source("idx", "idx:DIR")
def _idx(rest: str, options: Options) -> Opened:
    """A folder of IDX files, compressed by gzip or not: images and labels to train on, and beside them `t10k`, `test`
    or `val`."""
    folder = Path(rest)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return _opened(folder)


def _opened(folder: Path, names: tuple[str, ...] | None = None) -> Opened:
    pairs = {part: pair for part in _PARTS if (pair := _pair(folder, part)) is not None}
    parts = {part: Named(read_idx(x), read_idx(y), str(x), str(y)) for part, (x, y) in pairs.items()}
    return of_arrays(parts, names)


def _pair(folder: Path, part: str) -> tuple[Path, Path] | None:
    """The files of images and of labels of a part; None: it has none. Raises: DataError if one lacks the other."""
    files = [_file(folder, part, what) for what in ("images", "labels")]
    if files == [None, None] and part != "train":
        return None
    for path, what in zip(files, ("images", "labels"), strict=True):
        if path is None:
            hint = "names as train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz"
            raise DataError(f"{folder} has no IDX file of the {part} {what}\n  hint: {hint}")
    images, labels = files
    assert images is not None
    assert labels is not None
    return images, labels


def _file(folder: Path, part: str, what: str) -> Path | None:
    patterns = [f"*{word}-{what}*idx*" for word in _PARTS[part]]
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    by_name = {path.name.removesuffix(".gz"): path for path in files}
    if len(by_name) > 1:
        raise DataError(f"{folder} has several IDX files of the {part} {what}: {', '.join(by_name)}")
    return next(iter(by_name.values()), None)


def read_idx(path: Path) -> Any:
    """The array of an IDX file. Raises: DataError if it is none, or not as long as it says."""
    if reason := not_a_file(path):
        raise DataError(f"cannot read {path}: {reason}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            kind = _TYPES.get(start[2]) if len(start) == 4 and start[:2] == b"\0\0" else None
            if kind is None or not 1 <= start[3] <= 4:
                raise DataError(f"{path} is no IDX file")
            shape = struct.unpack(f">{start[3]}I", file.read(4 * start[3]))
            size = math.prod(shape) * np.dtype(kind).itemsize
            if not 0 < size <= _MOST_BYTES:
                raise DataError(f"{path} says that it holds {list(shape)} values; from 1 byte to 8 GiB can be read")
            raw = file.read(size)
            if len(raw) != size or file.read(1):
                raise DataError(f"{path} is not as long as it says: {list(shape)} values")
    except (OSError, EOFError, struct.error, zlib.error) as e:
        raise DataError(f"cannot read {path}: {first_line(e)}") from None
    array = np.frombuffer(raw, kind).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))
