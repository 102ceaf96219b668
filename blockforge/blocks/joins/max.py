"""The largest value as a join."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Shape
from blockforge.blocks.joins.folded import FoldedJoin, FoldedModule
from blockforge.blocks.registry import join


@join("max")
class Max(FoldedJoin):
    """The largest of the maps' values at each position and channel. Sides and widths of 1 are broadcast.

    Shape: maps_BHWC -> y_BHWC.
    Cost: no multiply-adds.
    Raises: OpError if the maps differ in size or width.
    Reference: Maxout Networks, ICML 2013, https://arxiv.org/abs/1302.4389.
    """

    token_rule = "each"

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return MaxModule(self.meeting(shapes))


class MaxModule(FoldedModule):
    """See `Max`."""

    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.maximum(y, x)
