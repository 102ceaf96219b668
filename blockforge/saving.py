"""Models on disk: a folder that reloads, and weights that load safely."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blockforge import __version__
from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.out_norms import out_norm_values
from blockforge.errors import WeightsError, shown_path
from blockforge.files import make_folder, write_atomically, write_text
from blockforge.notes import note
from blockforge.plugins import comments, needed
from blockforge.spec import Spec, load, to_yaml
from blockforge.weights.files import Weights, read_checkpoint
from blockforge.weights.leeway import leeway
from blockforge.weights.misfit import MisfitError, looks_ours
from blockforge.weights.official import fitted, unwrap
from blockforge.weights.resize import resizers
from blockforge.weights.sizes import hint_of_size

_CLASSES = "blockforge_classes"
MAX_JSON = 2**24
"""Bytes of a file of JSON."""


def save_model(model: Backbone, folder: str | os.PathLike[str]) -> None:
    """Write `spec.yaml` (resolved), `graph.json`, `model.safetensors` and `versions.json` into `folder`.

    Raises: OutputError if the disk refuses; each file is then as it was, or whole.
    """
    path = Path(folder)
    make_folder(path)
    texts = {
        "spec.yaml": spec_text(model.spec),
        "graph.json": model.arch.to_json(indent=1),
        "versions.json": json.dumps(_versions(model), indent=1),
    }
    save_weights(model, path / "model.safetensors")
    for name, text in texts.items():
        write_text(path / name, text + "\n")


def spec_text(spec: Spec) -> str:
    """A spec as YAML to be kept, with a comment for each plugin that it needs."""
    return comments(spec.tree) + to_yaml(spec, header=False)


def save_weights(model: Backbone, file: Path) -> None:
    """Write a model's tensors as safetensors, with the name of its spec, and of its classes, in the header.

    Raises: OutputError.
    """
    classes = {} if model.classes is None else {_CLASSES: json.dumps(model.classes)}
    save_tensors(model.state_dict(), file, {**about(model.arch), **classes})


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all; equal ones give equal bytes. Raises: OutputError."""
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}

    def write(path: Path) -> None:
        save_file(plain, path, dict(metadata))
        _order_metadata(path)

    write_atomically(file, write)


def _order_metadata(file: Path) -> None:
    """Bring what the header says in words into the order of its keys: safetensors writes them in any."""
    with file.open("r+b") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the same keys take the same space"
        opened.seek(8)
        opened.write(text.ljust(size))


def about(arch: Architecture) -> dict[str, str]:
    """What the header of a file of weights says of the network."""
    return {"format": "pt", "blockforge_spec": arch.name, "blockforge_hash": arch.hash}


def classes_in_header(file: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The names of the classes, by label, that a file of ours says; None: it says none."""
    try:
        with safe_open(os.fspath(file), "pt") as opened:
            found = json.loads((opened.metadata() or {}).get(_CLASSES, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return None
    named = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if named else None


def load_model(folder: str | os.PathLike[str]) -> Backbone:
    """The model that `save_model` wrote.

    Raises: SpecError or WeightsError if the folder does not hold one.
    """
    from blockforge.api import build

    path = Path(folder)
    info = _read_versions(path / "versions.json")
    model = build(load(path / "spec.yaml"), out_indices=info["out_indices"], out_norm=info["out_norm"])
    if not info["pooled"]:
        model.reset_classifier(0, global_pool="")
    load_weights(model, path / "model.safetensors")
    return model


def _read_versions(file: Path) -> dict[str, Any]:
    """What of `versions.json` says which model the folder holds; a folder may lack it.

    Raises: WeightsError if it holds what `save_model` never writes.
    """
    indices, norm, pooled = None, None, True
    if os.path.isfile(file):
        whole = read_json(file)
        indices, norm, pooled = whole.get("out_indices"), whole.get("out_norm"), whole.get("pooled", True)
        if indices is not None and not (isinstance(indices, list) and all(type(i) is int for i in indices)):
            raise WeightsError(f"{shown_path(file)}: out_indices is a list of stages or null")
        if not (norm is None or isinstance(norm, dict)):
            raise WeightsError(f"{shown_path(file)}: out_norm is a norm with its parameters, or null")
        if not isinstance(pooled, bool):
            raise WeightsError(f"{shown_path(file)}: pooled is true or false")
    return {"out_indices": indices, "out_norm": norm, "pooled": pooled}


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file that somebody else may have written. Raises: WeightsError."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON // 2**20} MiB")
        found = json.loads(data)
    except (OSError, ValueError, RecursionError) as e:  # too deep, or a number of thousands of digits
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else getattr(e, "strerror", None) or str(e)
        raise WeightsError(f"{shown_path(file)} cannot be read: {reason}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{shown_path(file)} cannot be read: it holds no JSON object")
    return found


def load_weights(
    model: Backbone, file: str | os.PathLike[str], key: str | None = None, prefix: str | None = None
) -> None:
    """Load weights of ours, or an official checkpoint of the spec's family, into `model`.

    What trainers wrap them in is taken off: wrappers' keys and prefixes, and parts that wrappers put into names.
    Where raw weights and their moving average are both there, the average is taken, and a line says so. A model of
    feature maps takes a whole model's: a line names what it leaves out.

    Args:
        file: a path, or a `Weights`.
        key, prefix: as `Weights`.
    Raises: WeightsError if the file cannot be read safely or does not fit; the model is then unchanged.
    """
    weights = Weights.of(file, key, prefix)
    tensors = unwrap_file(weights)
    own = model.state_dict()
    try:
        fitting = fitted(tensors, own, leeway(model), resizers(model))
    except MisfitError as e:
        found = (
            _named_in(weights.file)
            if looks_ours(tensors)
            else f"blockforge convert {file} -o OUT finds what they are of"
        )
        raise MisfitError(f"{file}: {e.differences}", e.hint or hint_of_size(model.arch, e) or found) from None
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    model.load_state_dict({**own, **fitting})
    classes = classes_in_header(weights.file)
    model.classes = classes if classes is not None and len(classes) == model.num_classes else None


def unwrap_file(file: str | os.PathLike[str], say: Callable[[str], None] = note) -> dict[str, Tensor]:
    """The tensors of a file, whatever they are wrapped in.

    Args:
        file: a path, or a `Weights`.
        say: is told what was chosen, where something was.
    Raises: WeightsError as `read_checkpoint`.
    """
    weights = Weights.of(file)
    found = read_checkpoint(weights.file)
    try:
        tensors = unwrap(found, weights.key, weights.prefix, say=lambda line: say(f"{file}: {line}"))
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    if any(name.startswith("optimizer/") for name in tensors):
        hint = "model.safetensors and best.safetensors beside it hold weights"
        raise WeightsError(f"{file} says where a run stands\n  hint: {hint}")
    return tensors


def _named_in(file: str | os.PathLike[str]) -> str | None:
    """Whose weights a file of ours says that it holds."""
    try:
        with safe_open(os.fspath(file), "pt") as opened:
            name = (opened.metadata() or {}).get("blockforge_spec")
    except (SafetensorError, OSError):
        return None
    if not name:
        return None
    spec = Path(file).with_name("spec.yaml")
    place = f"; its spec is {spec}" if spec.is_file() else ""
    return f"these are the weights of another network, '{name[:80]}'{place}"


def _versions(model: Backbone) -> dict[str, Any]:
    norm = out_norm_values(model.out_norm)
    return {
        "blockforge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hash": model.arch.hash,
        "out_indices": list(model.out_indices) if model.out_indices is not None else None,
        "out_norm": norm,
        "pooled": model.pooled,
        "plugins": [{s.kind.strip("-"): s.name, "blocks": b} for s, b in needed([model.spec.tree, norm]).items()],
    }
