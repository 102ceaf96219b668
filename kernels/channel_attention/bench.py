"""Sizes at which `blockforge bench kernels` times channel attention: SparX-Mamba-T, 224 px."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.channel_attention import channel_attention

_GROUPS = 4
_STAGES = ((2, 784, 192), (3, 196, 320), (4, 49, 512))
"""Stage, positions and channels; the queries' map is always 7 x 7."""


def cases() -> list[Case]:
    """The stages that have it, with one image and with eight."""
    return [
        Case(
            f"stage {stage} of SparX-Mamba-T: batch {batch}, L {length}, C {dim}",
            partial(_operands, batch, length, dim),
            partial(channel_attention, groups=_GROUPS),
            _plain,
            "products, cat, shuffle",
        )
        for batch in (1, 8)
        for stage, length, dim in _STAGES
    ]


def _plain(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor) -> Tensor:
    """A line of the definition after the other, a group at a time."""
    attended = []
    for q, k, v in zip(*(t.chunk(_GROUPS, dim=-1) for t in (q_BPC, k_BPC, v_BLC)), strict=True):
        weights = torch.softmax(q.mT @ k * q.shape[1] ** -0.5, dim=-1)
        attended.append(v @ weights.mT)
    joined = torch.cat([x_BLC, *attended, v_BLC], dim=-1)
    return joined.unflatten(-1, (-1, 3)).transpose(-1, -2).flatten(-2)


def _operands(batch: int, length: int, dim: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = (length, 49, 49, length)
    return tuple(torch.randn(batch, size, dim, generator=generator).to(device) for size in sizes)
