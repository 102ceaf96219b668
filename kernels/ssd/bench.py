"""Sizes of the scan at which `blockforge bench kernels` times it: VSSD-T with `mixer: ssd`, 224 px."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.ssd import ssd
from blockforge.kernels.ssd.reference import ssd as loop


def cases() -> list[Case]:
    """Stages 1 and 3, one image, and stage 3 with eight."""
    sizes = [("stage 1 of VSSD-T", 1, 3136, 2), ("stage 3 of VSSD-T", 1, 196, 8), ("stage 3 of VSSD-T", 8, 196, 8)]
    return [
        Case(
            f"{where}: batch {batch}, L {length}, {heads} heads of 64, N 64",
            partial(_operands, batch, length, heads),
            ssd,
            loop,
            "loop over L",
        )
        for where, batch, length, heads in sizes
    ]


def _operands(batch: int, length: int, heads: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, length, heads * 64 + 2 * 64, generator=generator)
    x, B, C = maps.split([heads * 64, 64, 64], dim=-1)
    dt, A = torch.rand(batch, length, heads, generator=generator) * 0.1, -torch.linspace(1, 16, heads)
    operands = (x.unflatten(-1, (heads, 64)), dt, A, B.unsqueeze(2), C.unsqueeze(2), torch.ones(heads))
    return tuple(t.to(device) for t in operands)
