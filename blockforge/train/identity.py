"""What a run's result depends on, written first into its folder and compared before the run goes on."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import torch

import blockforge
from blockforge.compiler import Architecture
from blockforge.compiler.graph.connect import RULES
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import RunError
from blockforge.notes import note
from blockforge.train.data import Data, digest_of
from blockforge.train.opening import SOURCES
from blockforge.train.optim import lr_factor
from blockforge.train.recipe import NO_RESULT, Recipe
from blockforge.weights.files import Weights

_TOLD = ("versions.", "recipe.epochs")
"""What may differ when a run goes on, and is then said."""
_SHOWN = 8


def identity(
    arch: Architecture,
    data: Data,
    recipe: Recipe,
    seed: int,
    weights: Weights | None,
    world: int,
    teacher: str | None = None,
    init: str | None = None,
) -> dict[str, Any]:
    """Everything that a result depends on, as plain data; nothing of where files lie.

    Args:
        teacher, init: digests of the network that it learns from, and of that whose weights it begins with.
    """
    return {
        "network": arch.hash,
        "data": data.identity(),
        "seed": seed,
        "weights": _weights_identity(weights) if weights is not None else None,
        "teacher": teacher,
        "init": init,
        "plugins": _plugins(arch, data),
        "processes": world,
        "recipe": recipe.model_dump(exclude=NO_RESULT),
        "versions": {"blockforge": blockforge.__version__, "torch": torch.__version__},
    }


def network_digest(model: Backbone) -> str:
    """What tells a network with its weights from others."""
    tensors = (t.detach().cpu().contiguous().numpy().tobytes() for t in model.state_dict().values())
    return digest_of(model.arch.hash, *tensors)


def compare(there: dict[str, Any], here: dict[str, Any], folder: Path, epochs_done: int = 0) -> None:
    """Refuse to go on with another run; a run of the same settings may get another number of epochs.

    Args:
        there, here: two `identity`.
        epochs_done: how far the run in the folder is.
    Raises: RunError.
    """
    flat_there, flat_here = _flat(there), _flat(here)
    names = [k for k in sorted(flat_there.keys() | flat_here) if not k.startswith(_TOLD)]
    if different := [k for k in names if flat_there.get(k) != flat_here.get(k)]:
        lines = [f"{k}: {_short(flat_there.get(k))} there, {_short(flat_here.get(k))} here" for k in different[:_SHOWN]]
        text = "\n  ".join([*lines, *([f"... and {len(different) - _SHOWN} more"] if len(different) > _SHOWN else [])])
        trained = folder / "model.safetensors"
        start = f"; --weights {trained} starts a new one from its weights" if trained.exists() else ""
        hint = f"the same settings go on with it; else another --out{start}"
        raise RunError(f"{folder} holds another run:\n  {text}\n  hint: {hint}")
    wanted = here["recipe"]["epochs"]
    if wanted < epochs_done:
        hint = f"--epochs {epochs_done}, or more, goes on with it; else another --out"
        raise RunError(f"{folder} has trained {epochs_done} epochs, more than {wanted}\n  hint: {hint}")


def tell_changes(there: dict[str, Any], here: dict[str, Any], recipe: Recipe, steps_per_epoch: int, step: int) -> None:
    """Say what is not as it was when the run in a folder was begun, of what may differ.

    Args:
        recipe: that of now.
        step: where the run stands.
    """
    for name, now in here["versions"].items():
        if (before := there.get("versions", {}).get(name)) != now:
            note(f"the run was begun with {name} {before} and goes on with {now}: its bits may differ")
    had, have = there["recipe"]["epochs"], recipe.epochs
    if had == have or not step:
        return
    old, new = (lr_factor(r, steps_per_epoch)(step) for r in (recipe.model_copy(update={"epochs": had}), recipe))
    stretched = f"; the {recipe.schedule} schedule is that of {have} epochs from here on, learning rate"
    rates = f"{recipe.lr * new:.3g} at step {step} in place of {recipe.lr * old:.3g}"
    note(f"the run goes on to epoch {have}, not {had}{f'{stretched} {rates}' if old != new else ''}")


def _weights_identity(weights: Weights) -> dict[str, Any]:
    """Weights by their content: a file that was moved is the same."""
    with open(weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"digest": digest[:32], "key": weights.key, "prefix": weights.prefix}


def _plugins(arch: Architecture, data: Data) -> dict[str, str]:
    """Name and content of each file from elsewhere that defines a block or a rule of the network, or opens the data."""
    nodes = arch.nodes.values()
    ops = [op for node in nodes for op in (node.block, node.norm) if op is not None]
    parts = [step.op for node in nodes for p in (node.program, node.norm_parts) if p is not None for step in p.steps]
    names = {type(op).__module__ for op in (*ops, *parts)}
    names |= {RULES.modules()[stage.connect.rule] for stage in arch.plan.stages if stage.connect is not None}
    names |= {module for prefix, module in SOURCES.modules().items() if prefix == re.split("[:?]", data.name)[0]}
    modules = [sys.modules.get(name) for name in names if not name.startswith("blockforge.")]
    files = {Path(m.__file__) for m in modules if m is not None and m.__file__ is not None}
    return {file.name: digest_of(file.read_bytes()) for file in sorted(files) if file.is_file()}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """`{recipe: {lr: 1}}` -> `{recipe.lr: 1}`, one level."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
