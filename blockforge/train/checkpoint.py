"""Where a run stands, in one file that is replaced as a whole: tensors as safetensors, the rest as JSON in its header.

What is drawn at random follows from the seed, the epoch, the step and the process (`data.mixed`), so the number of
the step says where every generator and sampler stands.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import RunError
from blockforge.files import remove_left
from blockforge.train.identity import compare
from blockforge.train.result import EpochRecord
from blockforge.weights.tensor_files import save_tensors

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Position:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        history: epochs that ended.
        loss_sum: losses of the steps of the epoch that has not ended, together.
        epoch_seconds, seconds: time of that epoch, and of all.
        best: highest top-1 so far.
    """

    step: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best: float = -1.0


@dataclass(frozen=True)
class Parts:
    """What a run holds that changes while it goes on."""

    model: Backbone
    average: AveragedModel | None
    optimizer: Optimizer
    scheduler: LambdaLR


def save(folder: Path, parts: Parts, position: Position, settings: dict[str, Any]) -> None:
    """Replace the folder's checkpoint."""
    tensors = {f"model/{k}": v for k, v in parts.model.state_dict().items()}
    if parts.average is not None:
        tensors |= {f"average/{k}": v for k, v in parts.average.state_dict().items()}
    names = _parameter_names(parts)
    state = parts.optimizer.state_dict()["state"]
    for index, values in state.items():
        tensors |= {f"optimizer/{names[index]}/{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
    scheduler = {k: v for k, v in parts.scheduler.state_dict().items() if k != "lr_lambdas"}
    header = {"position": asdict(position), "settings": settings, "scheduler": scheduler}
    save_tensors(tensors, folder / CHECKPOINT, {"run": json.dumps(header)})


def load(folder: Path, parts: Parts, settings: dict[str, Any]) -> Position | None:
    """Bring the parts to where the folder's checkpoint stands; None: there is none.

    Raises: RunError if it is another run's, or cannot be read.
    """
    remove_left(folder, CHECKPOINT)
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    header, tensors = _read(path)
    compare(header["settings"], settings, folder, len(header["position"]["history"]))
    parts.model.load_state_dict(_below(tensors, "model/"))
    if parts.average is not None:
        parts.average.load_state_dict(_below(tensors, "average/"))
    _load_optimizer(parts, _below(tensors, "optimizer/"))
    _load_scheduler(parts, header["scheduler"])
    position = dict(header["position"])
    position["history"] = [EpochRecord(**record) for record in position["history"]]
    return Position(**position)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(os.fspath(path), "pt") as file:
            header = json.loads((file.metadata() or {})["run"])
            return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError, KeyError) as e:
        raise RunError(f"{path} cannot be read: {e}\n  hint: remove it to begin anew, or give another --out") from None


def _load_optimizer(parts: Parts, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for index, name in enumerate(_parameter_names(parts)):
        if own := _below(tensors, f"{name}/"):
            state[index] = own
    groups = parts.optimizer.state_dict()["param_groups"]
    parts.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _load_scheduler(parts: Parts, state: dict[str, Any]) -> None:
    """Put the scheduler at its step. The rate there is that of the recipe at hand, whose epochs may be more."""
    scheduler = parts.scheduler
    scheduler.load_state_dict({**scheduler.state_dict(), **state})
    groups = zip(parts.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, base, factor in groups:
        group["lr"] = base * factor(scheduler.last_epoch)


def _parameter_names(parts: Parts) -> list[str]:
    """Names of the optimiser's parameters in its own order."""
    names = {id(p): name for name, p in parts.model.named_parameters()}
    return [names[id(p)] for group in parts.optimizer.param_groups for p in group["params"]]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
