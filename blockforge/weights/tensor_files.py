"""Files of weights of ours: safetensors, whose header says what they are of; and the tensors of any file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blockforge.compiler import Architecture
from blockforge.errors import WeightsError
from blockforge.files import write_atomically
from blockforge.notes import note
from blockforge.weights.files import Weights, read_checkpoint
from blockforge.weights.official import unwrap

_CLASSES = "blockforge_classes"
_FORM = "blockforge_form"


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


def about(arch: Architecture, classes: tuple[str, ...] | None = None) -> dict[str, str]:
    """What the header of a file of weights says of the network, and of its classes."""
    named = {} if classes is None else {_CLASSES: json.dumps(classes)}
    form = {} if arch.trained is None else {_FORM: arch.form}
    return {"format": "pt", "blockforge_spec": arch.name, "blockforge_hash": arch.hash, **form, **named}


def classes_in_header(file: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The names of the classes, by label, that a file of ours says; None: it says none."""
    try:
        with safe_open(os.fspath(file), "pt") as opened:
            classes = json.loads((opened.metadata() or {}).get(_CLASSES, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return None
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if named else None


def unwrap_file(file: str | os.PathLike[str], say: Callable[[str], None] = note) -> dict[str, Tensor]:
    """The tensors of a file, whatever they are wrapped in.

    Args:
        file: a path, or a `Weights`.
        say: is told what was chosen, where something was.
    Raises: WeightsError as `read_checkpoint`.
    """
    weights = Weights.of(file)
    checkpoint = read_checkpoint(weights.file)
    try:
        tensors = unwrap(checkpoint, weights.key, weights.prefix, say=lambda line: say(f"{file}: {line}"))
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    if any(name.startswith("optimizer/") for name in tensors):
        hint = "model.safetensors and best.safetensors beside it hold weights"
        raise WeightsError(f"{file} says where a run stands\n  hint: {hint}")
    return tensors


def form_in_header(file: str | os.PathLike[str]) -> str:
    """The form of the network that a file's weights are of: what says nothing is of the one that is trained."""
    try:
        with safe_open(os.fspath(file), "pt") as opened:
            form = (opened.metadata() or {}).get(_FORM)
            return "deployed" if form == "deployed" else "trained"
    except (SafetensorError, OSError):
        return "trained"


def named_in(file: str | os.PathLike[str]) -> str | None:
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
