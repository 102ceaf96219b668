"""Sizes at which the scan of a map is timed."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.cross_scan import DIRECTIONS, cross_scan
from blockforge.kernels.selective_scan.bench import loop


def cases() -> list[Case]:
    sizes = {
        "1 x 56 x 56 x 192, N 1 (SparX-Mamba-T, stage 1)": (1, 56, 192, 1, 6),
        "1 x 14 x 14 x 640, N 1 (SparX-Mamba-T, stage 3)": (1, 14, 640, 1, 20),
        "8 x 28 x 28 x 384, N 1": (8, 28, 384, 1, 12),
        "1 x 28 x 28 x 192, N 16": (1, 28, 192, 16, 6),
    }
    return [Case(name, partial(make, *size), run, _copies, "4 copies, loop over L") for name, size in sizes.items()]


def make(batch: int, side: int, dim: int, states: int, rank: int, device: torch.device) -> tuple[Tensor, ...]:
    """A map and the operands of four directions."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    count = len(DIRECTIONS)
    steps_and_weights = noise(batch, side, side, count, rank + 2 * states).split([rank, states, states], dim=-1)
    weight, A = noise(count, dim, rank) * rank**-0.5, -noise(count, dim, states).exp()
    return noise(batch, side, side, dim), *steps_and_weights, weight, A, noise(count, dim), noise(count, dim)


def run(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, weight: Tensor, A: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    """The public function in all four directions."""
    return cross_scan(x, dt, B, C, weight, A, D, dt_bias=bias, directions=DIRECTIONS)


def _copies(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, weight: Tensor, A: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    """As released: the map unrolled four times, one scan of four groups, and the four results rolled up."""
    height, width, dim = x.shape[1:]

    def unroll(t: Tensor, k: int) -> Tensor:
        t = (t.transpose(1, 2) if k % 2 else t).flatten(1, 2).mT
        return t.flip(-1) if k >= 2 else t

    u = torch.cat([unroll(x, k) for k in range(4)], dim=1)
    delta = torch.cat([unroll(F.linear(dt[..., k, :], weight[k]), k) for k in range(4)], dim=1)
    B, C = (torch.stack([unroll(t[..., k, :], k) for k in range(4)], dim=1) for t in (B, C))
    y = loop(u, delta, A.flatten(0, 1), B, C, D.flatten(), bias.flatten()).unflatten(1, (4, dim))
    y = y[:, :2] + y[:, 2:].flip(-1)
    rows, columns = y[:, 0].unflatten(-1, (height, width)), y[:, 1].unflatten(-1, (width, height)).mT
    return (rows + columns).permute(0, 2, 3, 1)
