"""Sizes at which `blockforge bench kernels` times the linear layer: DeiT-S and ConvNeXt-T, 224 px."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.linear import linear


def cases() -> list[Case]:
    """The wide layers of one image, where the weights outweigh the map, and of eight."""
    sizes = [
        ("DeiT-S", (1, 197, 384), 1536),
        ("ConvNeXt-T, stage 1", (1, 56, 56, 96), 384),
        ("ConvNeXt-T, stage 4", (1, 7, 7, 768), 3072),
        ("DeiT-S", (8, 197, 384), 1536),
        ("ConvNeXt-T, stage 1", (8, 56, 56, 96), 384),
    ]
    return [
        Case(
            f"{where}: batch {shape[0]}, {shape[-1]} to {width} channels",
            partial(_operands, shape, width),
            linear,
            F.linear,
            "F.linear",
        )
        for where, shape, width in sizes
    ]


def _operands(shape: tuple[int, ...], width: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(width, shape[-1], generator=generator) * shape[-1] ** -0.5
    return x.to(device), weight.to(device), torch.randn(width, generator=generator).to(device)
