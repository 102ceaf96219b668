"""Activations that overwrite their input in inference, for inputs that nobody else holds.

The hidden map of a feed-forward network is the largest of a model. A second one for the activation's result is memory
that the system must hand out and clear page by page: at batch 8 that costs more than the activation itself
(measured: docs/performance.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.layers import activation


def activation_inplace(name: str) -> nn.Module:
    """The activation called `name` (see `fields.Act`), for an input that is used nowhere else."""
    return InplaceGELU() if name == "gelu" else activation(name)


class InplaceGELU(nn.GELU):
    """GELU in its input's memory, unless gradients need the input or a graph is captured."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return F.gelu(x)
        y: Tensor = torch.ops.aten.gelu_(x)
        return y
