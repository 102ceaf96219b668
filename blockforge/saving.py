"""Models on disk: a folder that reloads, and weights that load safely."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from blockforge import __version__
from blockforge.compiler import compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.out_norms import out_norm_values
from blockforge.errors import WeightsError, shown_path
from blockforge.files import make_folder, write_text
from blockforge.provenance import comments, needed
from blockforge.spec import Spec, to_yaml
from blockforge.weights.differences import allowed_differences
from blockforge.weights.files import Weights
from blockforge.weights.mismatch import MismatchError, looks_ours
from blockforge.weights.official import fitted
from blockforge.weights.resize import resizers
from blockforge.weights.sizes import hint_of_size
from blockforge.weights.tensor_files import (
    about,
    classes_in_header,
    form_in_header,
    named_in,
    save_tensors,
    unwrap_file,
)

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
    save_tensors(model.state_dict(), file, about(model.arch, model.classes))


def load_model(folder: str | os.PathLike[str]) -> Backbone:
    """The model that `save_model` wrote; or that of a spec with its weights beside it, `NAME.yaml` and
    `NAME.safetensors`, by either of the two, with the classes of the weights.

    Raises: SpecError or WeightsError if there is none.
    """
    path = Path(folder)
    if path.suffix in (".yaml", ".safetensors") and not path.is_dir():
        return _load_pair(path)
    info = _read_versions(path / "versions.json")
    arch = compile_spec(path / "spec.yaml").in_form(info["form"])
    model = Backbone.from_architecture(arch, info["out_indices"], out_norm=info["out_norm"])
    if not info["pooled"]:
        model.reset_classifier(0, global_pool="")
    load_weights(model, path / "model.safetensors")
    return model


def _load_pair(path: Path) -> Backbone:
    weights = path.with_suffix(".safetensors")
    if not weights.is_file():
        raise WeightsError(f"there are no weights beside {shown_path(path)}: no {weights.name}")
    classes = classes_in_header(weights)
    changes = {"num_classes": len(classes)} if classes is not None else None
    model = Backbone.from_architecture(compile_spec(path.with_suffix(".yaml"), changes))
    load_weights(model, weights)
    return model


def _read_versions(file: Path) -> dict[str, Any]:
    """What of `versions.json` says which model the folder holds; a folder may lack it.

    Raises: WeightsError if it holds what `save_model` never writes.
    """
    indices, norm, pooled, form = None, None, True, "trained"
    if os.path.isfile(file):
        whole = read_json(file)
        indices, norm, pooled = whole.get("out_indices"), whole.get("out_norm"), whole.get("pooled", True)
        if indices is not None and not (isinstance(indices, list) and all(type(i) is int for i in indices)):
            raise WeightsError(f"{shown_path(file)}: out_indices is a list of stages or null")
        if not (norm is None or isinstance(norm, dict | list)):
            raise WeightsError(f"{shown_path(file)}: out_norm is a norm with its parameters, or null")
        if (form := whole.get("form", form)) not in ("trained", "deployed"):
            raise WeightsError(f"{shown_path(file)}: form is trained or deployed")
        if not isinstance(pooled, bool):
            raise WeightsError(f"{shown_path(file)}: pooled is true or false")
    return {"out_indices": indices, "out_norm": norm, "pooled": pooled, "form": form}


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file that somebody else may have written. Raises: WeightsError."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON // 2**20} MiB")
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as e:  # too deep, or a number of thousands of digits
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else getattr(e, "strerror", None) or str(e)
        raise WeightsError(f"{shown_path(file)} cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{shown_path(file)} cannot be read: it holds no JSON object")
    return content


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
        fitting = fitted(tensors, own, allowed_differences(model), resizers(model))
    except MismatchError as e:
        hint = (
            named_in(weights.file)
            if looks_ours(tensors)
            else f"blockforge convert {file} -o OUT finds what they are of"
        )
        told = e.hint or _hint_of_form(model, weights) or hint_of_size(model.arch, e) or hint
        raise MismatchError(f"{file}: {e.differences}", told) from None
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    model.load_state_dict({**own, **fitting})
    classes = classes_in_header(weights.file)
    model.classes = classes if classes is not None and len(classes) == model.num_classes else None


def _hint_of_form(model: Backbone, weights: Weights) -> str | None:
    """What to do about weights of the other form of a network."""
    form = form_in_header(weights.file)
    if form == model.arch.form:
        return None
    ways = {
        "trained": "load them into the model that is trained, then bf.deploy(model)",
        "deployed": "bf.load_model(folder) builds what they are of; they cannot be trained further",
    }
    return f"they are of the form that is {form}, the model is of the form that is {model.arch.form}: {ways[form]}"


def _versions(model: Backbone) -> dict[str, Any]:
    norm = out_norm_values(model.out_norm)
    return {
        "blockforge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hash": model.arch.hash,
        "form": model.arch.form,
        "out_indices": list(model.out_indices) if model.out_indices is not None else None,
        "out_norm": norm,
        "pooled": model.pooled,
        "plugins": [{s.kind.strip("-"): s.name, "blocks": b} for s, b in needed([model.spec.tree, norm]).items()],
    }
