"""Sizes at which the selective scan is timed."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.selective_scan import selective_scan


def cases() -> list[Case]:
    sizes = {
        "1 x 768 x 3136, N 1 (SparX-Mamba-T, stage 1)": (1, 768, 3136, 1, 4),
        "4 x 160 x 196, N 8 (MambaVision-T, stage 3)": (4, 160, 196, 8, 1),
        "8 x 384 x 784, N 1": (8, 384, 784, 1, 1),
        "1 x 192 x 3136, N 16": (1, 192, 3136, 16, 1),
    }
    return [Case(name, partial(_make, *size), _run, loop, "loop over L") for name, size in sizes.items()]


def _make(batch: int, dim: int, length: int, states: int, groups: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    u, delta = noise(batch, length, dim).mT, noise(batch, length, dim).mT
    B, C = noise(batch, groups, states, length), noise(batch, groups, states, length)
    return u, delta, -noise(dim, states).exp(), B, C, noise(dim), noise(dim)


def _run(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    return selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True)


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    """What packages fall back to without their CUDA extension: all decays and inputs at once, (B, D, L, N), then
    a product, a sum and a reduction for each position."""
    delta = F.softplus(delta + bias[:, None])
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1) for t in (B, C))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    added = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u)
    state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs = []
    for decay_t, added_t, C_t in zip(decay.unbind(2), added.unbind(2), C.unbind(3), strict=True):
        state = decay_t * state + added_t
        outputs.append((state * C_t).sum(-1))
    return torch.stack(outputs, dim=2) + D[:, None] * u
