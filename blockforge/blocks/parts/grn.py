"""Global response normalisation as a part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part

EPS = 1e-6
"""Added to the mean response before the division."""


@part("grn")
class GRNPart(Part):
    """Every channel times its response, the norm over positions divided by the mean of all channels', with learnt
    factors and terms, beside the map itself.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 parameters a channel; no multiply-adds.
    Reference: ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808.
    """

    token_rule = "all"

    @property
    def mixes(self) -> bool:
        return True

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return primitives.norm(shape.dim)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements + 2 * shape.dim

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return GRN(shape.dim)


class GRN(nn.Module):
    """Global response normalisation: `x + gamma * x * response + beta`, where a channel's response is its
    norm over positions, divided by the mean of all channels'."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))
        self.beta = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, x, 1 + self.gamma * _response(x))

    def no_weight_decay(self) -> set[str]:
        return {"gamma", "beta"}


def _response(x: Tensor) -> Tensor:
    """The norm of each channel, divided by the mean of all channels', (B, 1, 1, C)."""
    norm = _norm_over_positions(x)
    return norm / (norm.mean(-1, keepdim=True) + EPS)


def _norm_over_positions(x: Tensor) -> Tensor:
    """The L2 norm of each channel, (B, 1, 1, C)."""
    if x.dtype not in (torch.float32, torch.float64):  # squares may be too large for half precision
        norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        return norm
    squares = x.square().sum((1, 2), keepdim=True)  # several times faster than vector_norm on a CPU
    return squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt()  # the root has no derivative at zero
