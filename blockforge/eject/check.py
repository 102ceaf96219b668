"""An ejected file beside the model that it was made of."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import Outputs, by_name
from blockforge.eject.file import CLASS, eject
from blockforge.eject.recorded import EjectError
from blockforge.kernels import backend

TOLERANCE = 1e-5
"""Largest difference to the model's output, relative to the output's largest magnitude."""


@dataclass(frozen=True)
class Ejected:
    """What was written: lines of Python, and the largest relative difference of its outputs to the model's, with
    kernels in torch's own operators."""

    lines: int
    error: float


def write_ejected(model: Backbone, path: Path) -> Ejected:
    """Write the network of `model` to `path` as `eject` gives it, and compare what the file computes.

    Raises: EjectError if the file does not run, or not as the model does.
    """
    text = eject(model)
    path.write_text(text, encoding="utf-8")
    size = model.arch.plan.input
    x = torch.randn(2, size.channels, *size.size, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    with torch.inference_mode(), backend("torch"):
        wanted: Outputs = model.eval()(x)
        model.train(was_training)
        try:
            made: nn.Module = getattr(_loaded(path), CLASS)()
            made.load_state_dict(model.state_dict())
            got: Outputs = made.eval()(x)
        except Exception as e:
            raise _failed(model, f"the file does not run: {type(e).__name__}: {e}") from e
    expected, actual = by_name(wanted), by_name(got)
    error = max(_difference(actual[name], output) for name, output in expected.items())
    if not error <= TOLERANCE:
        raise _failed(model, f"its outputs differ from the model's by {error:.1e}")
    return Ejected(text.count("\n"), error)


def _difference(got: Tensor, wanted: Tensor) -> float:
    largest = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)  # a network may give zeros
    return ((got - wanted).abs().max() / largest).item()


def _loaded(path: Path) -> Any:
    """The file as a module, whatever its name ends in; nothing stays registered, and nothing is written beside it."""
    module = types.ModuleType("_blockforge_ejected")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def _failed(model: Backbone, why: str) -> EjectError:
    return EjectError(
        f"{model.arch.name} cannot be ejected: {why}\n  hint: a block of it uses what a file cannot carry"
    )
