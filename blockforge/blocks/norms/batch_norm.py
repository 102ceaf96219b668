"""Batch normalisation."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Layout, Norm, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.registry import norm


@norm("batch_norm")
class BatchNorm(Norm):
    """Batch normalisation: statistics of each channel over batch and positions, running ones in eval mode.

    Shape: keeps it.
    Cost: 2 * dim parameters (running statistics are buffers); no multiply-adds.
    Reference: Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    eps: Eps = 1e-5
    """Added to the variance."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def cost(self, shape: Shape) -> Cost:
        return primitives.norm(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return nn.BatchNorm2d(shape.dim, eps=self.eps)
