"""The sum as a join, every source with a learnt gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.aggregators.sum import Adding
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import aggregator


@aggregator("gated_sum")
class GatedSum(Adding):
    """The layer's input plus its sources, each source times a learnt gate of every channel, 1 at first;
    through a linear layer where another width is asked for.

    Shape: x_BHWC and sources_BHWC -> y_BHWD.
    Cost: C parameters a source; C * D multiply-adds a position if D is not C, else none.
    Raises: OpError if a source is not as wide as the input.
    Reference: Going deeper with Image Transformers (LayerScale), https://arxiv.org/abs/2103.17239.
    """

    def cost(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Cost:
        return super().cost(shape, sources, dim) + Cost(params=len(sources) * shape.dim)

    def build(self, shape: Shape, sources: tuple[int, ...], dim: int) -> nn.Module:
        return GatedSumModule(shape.dim, len(sources), dim)


class GatedSumModule(nn.Module):
    """See `GatedSum`."""

    def __init__(self, width: int, sources: int, dim: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.empty(sources, width))
        self.reset_parameters()
        self.proj = Linear(width, dim) if dim != width else nn.Identity()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.gates)

    def no_weight_decay(self) -> set[str]:
        return {"gates"}

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        for source, gate in zip(sources, self.gates, strict=True):
            x = torch.addcmul(x, source, gate)
        return self.proj(x)
