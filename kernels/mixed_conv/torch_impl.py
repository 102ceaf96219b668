"""Multi-head mixed convolution in standard operators: a convolution a head, a shuffle of channels, a grouped 1x1
convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.costs import rehearsing
from blockforge.kernels.cpu.convolutions import dilation_of_1x1


def mixed_conv(
    x_BHWC: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], mix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """See the package's `mixed_conv`. Differentiable; standard operators, which compilers and counters see."""
    x = x_BHWC.permute(0, 3, 1, 2)
    if mix is None:
        return _interleaved(x, weights, biases).permute(0, 2, 3, 1)
    groups = weights[0].shape[0]
    y = F.conv2d(_interleaved(x, weights, biases), *mix, dilation=dilation_of_1x1(x), groups=groups)
    return y.permute(0, 2, 3, 1)


def _interleaved(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The convolved heads of x_BCHW, channel c of every head side by side."""
    on_cpu = x.device.type == "cpu" or (x.is_meta and rehearsing())
    if not on_cpu or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return torch.stack(_convolved(x, weights, biases), dim=2).flatten(1, 2)
    # torch has a loop for this on channels-last maps on the CPU; a stack takes three times as long (see README.md).
    return torch.channel_shuffle(torch.cat(_convolved(x, weights, biases), dim=1), len(weights))


def _convolved(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
    heads = zip(x.chunk(len(weights), dim=1), weights, biases, strict=True)
    return [F.conv2d(head, w, b, padding=w.shape[-1] // 2, groups=w.shape[0]) for head, w, b in heads]
