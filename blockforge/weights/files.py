"""Files of weights in the formats that they come in, read without running what is in them."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from blockforge.errors import WeightsError, did_you_mean

_INDEX = ".index.json"
"""What the name of the list of a sharded checkpoint ends in."""
_PLAIN: list[Any] = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath]
"""Classes that trainers leave beside weights and that do nothing when they are made."""
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file\n  hint: git lfs pull",
    b"<!DOCTYPE": "a web page\n  hint: download the file itself",
    b"<html": "a web page\n  hint: download the file itself",
    b"\x89HDF": "an HDF5 file of another framework",
    b"GGUF": "a GGUF file of another framework",
}


@dataclass(frozen=True)
class Weights(os.PathLike[str]):
    """Weights in a file, and which of them: what every function with `weights` takes in place of a path.

    Attributes:
        file: safetensors (or the index of a sharded one), npz, or a checkpoint of torch.
        key: where in the checkpoint they are, as in `model_ema` or `ema.state_dict`; None: it is found.
        prefix: what their names begin with, as in `backbone.`; others are left out. None: it is found.
    """

    file: str | os.PathLike[str]
    key: str | None = None
    prefix: str | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.file)

    def __str__(self) -> str:
        return os.fspath(self.file)

    @classmethod
    def of(cls, file: str | os.PathLike[str], key: str | None = None, prefix: str | None = None) -> Weights:
        """The weights that a path names, or that were named before."""
        if isinstance(file, Weights):
            return cls(file.file, key or file.key, prefix or file.prefix)
        return cls(file, key, prefix)


def read_checkpoint(file: str | os.PathLike[str]) -> Any:
    """The content of a safetensors file, of all files of a sharded checkpoint, of an npz archive, or of a torch
    checkpoint that holds only tensors and plain values.

    Raises: WeightsError if it cannot be read, or if it is a pickle that wants to run code.
    """
    path = Path(file)
    if not path.is_file():
        inside = sorted(path.glob("*")) if path.is_dir() else []
        hints = [str(p) for p in inside if p.name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt", _INDEX))]
        own = [h for h in hints if h.endswith("/model.safetensors")] or hints[:5]
        raise WeightsError(f"no weights at {path}" + (f"\n  hint: {', '.join(own)}" if own else ""))
    if path.name.endswith(_INDEX):
        return _shards(path)
    try:
        with path.open("rb") as opened:
            head = opened.read(32)
        for mark, what in _FOREIGN.items():
            if head.startswith(mark):
                raise WeightsError(f"{path} is {what}")
        if path.suffix == ".safetensors" or head[8:10] == b'{"':
            return load_file(path)
        if head.startswith(b"PK") and (arrays := _npz(path)) is not None:
            return arrays
        return _torch(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as e:
        raise WeightsError(f"{path} is refused: {_refusal(str(e))}") from None
    except Exception as e:  # readers of three formats raise a dozen kinds for a broken file
        what = str(e)
        if "TorchScript" in what:
            hint = "torch.save(model.state_dict(), FILE) where the program was made"
            raise WeightsError(f"{path} holds a TorchScript program, not weights\n  hint: {hint}") from None
        raise WeightsError(f"{path} cannot be read: {what}") from None


def _torch(path: Path) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals([*_PLAIN, *_numpy()]):
        warnings.simplefilter("ignore", UserWarning)  # of the pickle's protocol; what matters is raised
        content = torch.load(path, map_location=_kept, weights_only=True)
    if not isinstance(content, Mapping | list | tuple):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _kept(storage: Any, place: str) -> Any:
    return storage if place == "meta" else storage.cpu()


def _numpy() -> list[Any]:
    """What a number of numpy is made with, which trainers keep as the best accuracy."""
    import numpy as np

    multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray
    kinds = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")]
    return [multiarray.scalar, np.dtype, *kinds, (multiarray.scalar, "numpy.core.multiarray.scalar")]


def _npz(path: Path) -> dict[str, Tensor] | None:
    """The arrays of numpy's archive; None: it is another zip file."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        if not all(name.endswith(".npy") for name in archive.namelist()):
            return None
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _shards(index: Path) -> dict[str, Any]:
    """All tensors of a sharded checkpoint."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise WeightsError(f"{index} is not the index of a sharded checkpoint: {e}") from None
    tensors: dict[str, Any] = {}
    for file in files:
        if file.resolve().parent != index.parent.resolve():
            raise WeightsError(f"{index} names a file of another folder, {file}")
        if not file.is_file():
            near = did_you_mean(file.name, [p.name for p in index.parent.glob(f"*{file.suffix}")], "files there")
            raise WeightsError(f"{index} names {file.name}, which is not beside it\n  hint: {near}")
        tensors |= read_checkpoint(file)
    return tensors


def _refusal(text: str) -> str:
    """Why torch did not unpickle a file, in a line: its own text advises to run what the file says."""
    called = re.search(r"GLOBAL (\S+)", text)
    why = f" (it wants to call {called[1][:80]})" if called else ""
    hint = "torch.save(model.state_dict(), FILE) holds tensors alone; so does a .safetensors file"
    return f"it is not a checkpoint of plain tensors{why}\n  hint: {hint}"
