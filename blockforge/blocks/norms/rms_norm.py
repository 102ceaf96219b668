"""Root mean square normalisation over channels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Norm, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.registry import norm


@norm("rms_norm")
class RMSNorm(Norm):
    """The channels of each position divided by the root of their mean square, times learnt factors.

    Shape: x_BHWC -> y_BHWC.
    Cost: dim parameters; elementwise work counts no multiply-adds.
    Reference: Root Mean Square Layer Normalization, NeurIPS 2019, https://arxiv.org/abs/1910.07467.
    """

    token_rule = "each"

    bias_before: ClassVar[bool] = True

    eps: Eps = 1e-6
    """Added to the mean square."""

    def cost(self, shape: Shape) -> Cost:
        return Cost(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements + shape.positions

    def build(self, shape: Shape) -> nn.Module:
        return RMSNormModule(shape.dim, eps=self.eps)


class RMSNormModule(nn.RMSNorm):
    """torch's norm of the last axis. In inference it makes one map, where torch makes two."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)
        mean: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        return (x * mean.add_(self.eps or 0.0).rsqrt_()).mul_(self.weight)
