"""Batch normalisation on channels-last maps."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Norm, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.registry import norm


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d on x_BHWC."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@norm("batch_norm")
class BatchNorm(Norm):
    """Batch normalisation: statistics of each channel over batch and positions, running ones in eval mode.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 * dim parameters (running statistics are buffers); no multiply-adds.
    Reference: Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    eps: Eps = 1e-5
    """Added to the variance."""

    def cost(self, shape: Shape) -> Cost:
        return primitives.norm(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return BatchNorm2d(shape.dim, eps=self.eps)
