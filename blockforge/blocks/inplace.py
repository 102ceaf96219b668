"""Activations that overwrite their input in inference, for inputs that nobody else holds.

The hidden map of a feed-forward network is the largest of a model. A second one for the activation's result is memory
that the system must hand out and clear page by page: at batch 8 that costs more than the activation itself
(measured: docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activation_inplace(name: str) -> nn.Module:
    """The activation called `name` (see `fields.Act`), for an input that is used nowhere else."""
    return _ACTS[name]()


def may_overwrite() -> bool:
    """Whether a map may be overwritten: neither gradients need it, nor is a graph captured."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())


class InplaceGELU(nn.GELU):
    """GELU in its input's memory where that may be overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        if not may_overwrite():
            return F.gelu(x, approximate=self.approximate)
        y: Tensor = torch.ops.aten.gelu_(x, approximate=self.approximate)
        return y


class InplaceReLU(nn.ReLU):
    """ReLU in its input's memory where that may be overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=may_overwrite())


class InplaceSiLU(nn.SiLU):
    """SiLU in its input's memory where that may be overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=may_overwrite())


_ACTS: dict[str, Callable[[], nn.Module]] = {
    "gelu": InplaceGELU,
    "gelu_tanh": lambda: InplaceGELU(approximate="tanh"),
    "relu": InplaceReLU,
    "silu": InplaceSiLU,
    "identity": nn.Identity,
}
