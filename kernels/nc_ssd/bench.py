"""Sizes at which `blockforge bench kernels` times the non-causal duality: VSSD-T, 224 px."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.nc_ssd import nc_ssd


def cases() -> list[Case]:
    """Stages 1 and 3, one image, and stage 1 with eight."""
    sizes = [("stage 1 of VSSD-T", 1, 3136, 2), ("stage 3 of VSSD-T", 1, 196, 8), ("stage 1 of VSSD-T", 8, 3136, 2)]
    return [
        Case(
            f"{where}: batch {batch}, L {length}, {heads} heads of 64, N 64",
            partial(_operands, batch, length, heads),
            nc_ssd,
            _einsum,
            "einsum of the definition",
        )
        for where, batch, length, heads in sizes
    ]


def _einsum(x_BLHP: Tensor, m_BLH: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, D_H: Tensor) -> Tensor:
    """One group: each line of the definition as it is written."""
    state = torch.einsum("blh,bln,blhp->bhnp", m_BLH, B_BLGN[:, :, 0], x_BLHP)
    return torch.einsum("bln,bhnp->blhp", C_BLGN[:, :, 0], state) + D_H[:, None] * x_BLHP


def _operands(batch: int, length: int, heads: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, length, heads * 64 + 2 * 64, generator=generator)
    x, B, C = maps.split([heads * 64, 64, 64], dim=-1)
    m = torch.rand(batch, length, heads, generator=generator) * 0.1
    operands = (x.unflatten(-1, (heads, 64)), m, B.unsqueeze(2), C.unsqueeze(2), torch.ones(heads))
    return tuple(t.to(device) for t in operands)
