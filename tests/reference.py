"""Fixtures of the official implementations: weights that follow from keys and shapes, and what came out.

A tensor of an official state dict is noise n, standard normal float32 from numpy's legacy generator seeded
with the CRC-32 of the tensor's key, moved and scaled as the first matching rule of `_RULES` says.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "reference"
LOGITS, GRAD_INPUT, GRAD_NORMS, LOGITS64 = 1e-4, 2e-4, 1e-3, 1e-6
"""Tolerances: relative errors in the L2 norm."""


@dataclass(frozen=True)
class _Key:
    """An official key and what the rules ask of it."""

    name: str
    shape: tuple[int, ...]
    parts: frozenset[str] = field(init=False)
    leaf: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", frozenset(self.name.split(".")))
        object.__setattr__(self, "leaf", self.name.rpartition(".")[2])

    def among(self, *leaves: str) -> bool:
        return self.leaf in leaves

    @property
    def ndim(self) -> int:
        return len(self.shape)


_COMPUTED = ("relative_position_index", "attn_mask")
_TABLES = ("embeddings_table", "relative_position_bias_table", "absolute_pos_embed", "pos_embed")
_Affine = tuple[float, float, float]
"""(offset, gain, divisor): the value is offset + gain * n / divisor, in this order, to the last bit."""


def _is_scale(key: _Key) -> bool:
    """Factors that start at one: norms, layer scales."""
    one_axis = key.ndim == 1 and key.among("gamma", "gamma_1", "gamma_2", "weight")
    return one_axis or (key.leaf == "weight" and "layerscale" in key.name)


def _kernel(key: _Key) -> _Affine:
    """Variance-keeping, but for convolutions added to their own input and for SparX's aggregators."""
    gain = 1.0
    if key.parts & {"pos_embed", "cpe1", "cpe2"}:
        gain = 0.2
    elif "op" in key.parts and "conv2d" in key.parts:
        gain = 2.0
    elif "op" in key.parts and key.parts & {"q", "k"}:
        gain = 2.5
    return 0.0, gain, math.sqrt(math.prod(key.shape[1:]))


def _x_proj(key: _Key) -> _Affine:
    return (0.0, 2.0, math.sqrt(key.shape[-2])) if key.shape[-1] == 1 else (0.0, 1.0, math.sqrt(key.shape[-1]))


_RULES: tuple[tuple[Callable[[_Key], bool], Callable[[_Key], _Affine]], ...] = (
    (lambda k: k.among("running_mean"), lambda k: (0.0, 0.1, 1.0)),
    (lambda k: k.among("A_log"), lambda k: (0.0, 0.5, 1.0)),
    (lambda k: k.among("A_logs", "dt_projs_bias"), lambda k: (-1.0, 0.5, 1.0)),
    (lambda k: k.among("D"), lambda k: (1.0, 0.1, 1.0)),
    (lambda k: k.among("Ds"), lambda k: (0.5, 0.1, 1.0)),
    (lambda k: k.among("dt_bias"), lambda k: (-3.0, 0.5, 1.0)),
    (lambda k: k.name.endswith("dt_proj.bias"), lambda k: (-1.0, 0.5, 1.0)),
    (lambda k: k.among("dt_projs_weight"), lambda k: (0.0, 1.0, math.sqrt(k.shape[-1]))),
    (lambda k: k.among("x_proj_weight"), _x_proj),
    (lambda k: k.among(*_TABLES), lambda k: (0.0, 0.2, 1.0)),
    (lambda k: k.among("gamma", "beta") and k.ndim == 4, lambda k: (0.0, 0.2, 1.0)),
    (_is_scale, lambda k: (1.0, 0.1, 1.0)),
    (lambda k: k.among("bias") and k.ndim == 1, lambda k: (0.0, 0.1, 1.0)),
    (lambda k: k.among("weight") and k.ndim >= 2, _kernel),
)


def noise(shape: Iterable[int], seed: int) -> Tensor:
    """Standard normal float32 of the legacy generator."""
    drawn = np.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def filled(name: str, shape: Iterable[int]) -> Tensor:
    """The value of one official tensor."""
    key = _Key(name, tuple(shape))
    if key.among("num_batches_tracked"):
        return torch.zeros(key.shape, dtype=torch.int64)
    n = noise(key.shape, zlib.crc32(name.encode()))
    if key.among("running_var"):
        return 1 + 0.2 * n.abs()
    offset, gain, divisor = next(values(key) for applies, values in _RULES if applies(key))
    return offset + gain * n / divisor


def fill(state: Iterable[tuple[str, Iterable[int]]]) -> dict[str, Tensor]:
    """An official state dict; buffers that a constructor computes are left out."""
    return {name: filled(name, shape) for name, shape in state if name.rpartition(".")[2] not in _COMPUTED}


@dataclass(frozen=True)
class Fixture:
    """What the official code gave: `facts` (its arguments, counts, gradient norms) and `tensors`."""

    name: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, name: str) -> Fixture:
        facts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        return cls(name, facts, load_file(FOLDER / f"{name}.safetensors"))

    @property
    def state(self) -> dict[str, Tensor]:
        return fill(self.facts["state"])

    @property
    def image(self) -> Tensor:
        size = (self.facts["batch"], 3, *self.facts["image_size"])
        return self.tensors["input"] if "input" in self.tensors else noise(size, self.facts["input_seed"])


def rel(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return ((a - b).norm() / b.norm()).item()
