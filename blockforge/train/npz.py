"""Archives of numpy arrays, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from blockforge.errors import DataError
from blockforge.train.pixels import not_a_file


def read_npz(path: str) -> dict[str, Any]:
    """The arrays of a file by name. Raises: DataError if it is none, or holds objects."""
    if reason := not_a_file(Path(path)):
        raise DataError(f"there is no file {path}" if not os.path.lexists(path) else f"cannot read {path}: {reason}")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as e:  # numpy and zipfile raise a dozen kinds for a broken file
        pickled = "Object arrays" in str(e) or "pickle" in str(e)
        reason = "it holds pickled objects, which could run code" if pickled else str(e)
        raise DataError(f"cannot read {path}: {reason}\n  hint: np.savez of plain arrays") from None


def class_names(array: Any, path: str) -> list[str]:
    """The names of the classes by label."""
    if array.ndim != 1 or array.dtype.kind != "U" or len(set(array.tolist())) < array.size:
        raise DataError(f"{path}: classes is {array.dtype}{list(array.shape)}; names are one row of different texts")
    return [str(name) for name in array]
