"""Models on disk: a folder that reloads, and weights that load safely."""

from __future__ import annotations

import json
import os
import pickle
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from blockforge import __version__
from blockforge.compiler.backbone import Backbone
from blockforge.errors import WeightsError, did_you_mean
from blockforge.spec import load, to_yaml
from blockforge.weights.official import unwrap


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: readers see the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_model(model: Backbone, folder: str | os.PathLike[str]) -> None:
    """Write `spec.yaml` (resolved), `graph.json`, `model.safetensors` and `versions.json` into `folder`."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}
    texts = {
        "spec.yaml": to_yaml(model.spec, header=False),
        "graph.json": model.arch.to_json(indent=1),
        "versions.json": json.dumps(_versions(model), indent=1),
    }
    write_atomically(path / "model.safetensors", lambda f: save_file(tensors, f, {"format": "pt"}))
    for name, text in texts.items():
        write_atomically(path / name, lambda f, text=text: f.write_text(text + "\n", encoding="utf-8"))  # type: ignore[misc]


def load_model(folder: str | os.PathLike[str]) -> Backbone:
    """The model that `save_model` wrote.

    Raises: SpecError or WeightsError if the folder does not hold one.
    """
    from blockforge.api import build

    path = Path(folder)
    info: Any = {}
    if (versions := path / "versions.json").is_file():
        try:
            info = dict(json.loads(versions.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as e:
            raise WeightsError(f"{versions} cannot be read: {e}") from None
    model = build(load(path / "spec.yaml"), out_indices=info.get("out_indices"))
    if info.get("pooled") is False:
        model.reset_classifier(0, global_pool="")
    load_weights(model, path / "model.safetensors")
    return model


def load_weights(model: Backbone, file: str | os.PathLike[str]) -> None:
    """Load weights of ours, or an official checkpoint of the spec's family, into `model`.

    Raises: WeightsError if the file cannot be read safely or does not fit; the model is then unchanged.
    """
    from blockforge.weights import load_official

    state = read_checkpoint(file)
    tensors = unwrap(state)
    own = model.state_dict()
    if len(set(own) & set(tensors)) * 2 < len(own):
        load_official(model, tensors)
        return
    problems = [f"missing: {k}; {did_you_mean(k, tensors, 'there are')[:200]}" for k in own if k not in tensors]
    problems += [f"left over: {k}" for k in tensors if k not in own]
    problems += [
        f"shape: {k} is {tuple(tensors[k].shape)} in the file, {tuple(v.shape)} in the model"
        for k, v in own.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if problems:
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise WeightsError(f"{file} does not fit this model:\n  " + "\n  ".join(problems[:12]) + more)
    model.load_state_dict(tensors)


def read_checkpoint(file: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The content of a safetensors file, or of a torch checkpoint that holds only tensors and plain values.

    Raises: WeightsError if it cannot be read, or if it is a pickle that wants to run code.
    """
    path = Path(file)
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        first = str(e).splitlines()[0]
        raise WeightsError(f"{path} is refused: it is not a checkpoint of plain tensors ({first})") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as e:
        raise WeightsError(f"{path} cannot be read: {e}") from None
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _versions(model: Backbone) -> dict[str, Any]:
    return {
        "blockforge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hash": model.arch.hash,
        "out_indices": list(model.out_indices) if model.out_indices is not None else None,
        "pooled": model.pooled,
    }


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
