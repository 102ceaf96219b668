"""A learnt vector for each position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import same_size
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.resize import bicubic, square_grid


@part("pos_embed")
class PosEmbed(Part):
    """A learnt vector for each position of the map, added to it.

    Shape: x_BHWC -> y_BHWC, only the H and W it was built for.
    Cost: H * W * C parameters; no multiply-adds.
    Reference: An Image is Worth 16x16 Words, ICLR 2021, https://arxiv.org/abs/2010.11929.
    """

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost(shape.elements)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return PosEmbedModule(shape)


class PosEmbedModule(nn.Module):
    """See `PosEmbed`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.size = (shape.height, shape.width)
        self.pos_embed = nn.Parameter(torch.empty(shape.positions, shape.dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "pos_embed")
        return x + self.pos_embed.view(x.shape[1:])

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def resized(self, name: str, value: Tensor) -> Tensor | None:
        """The vectors of another square map's positions, as DeiT's are resized."""
        dim = self.pos_embed.shape[1]
        if name != "pos_embed" or value.shape[-1] != dim:
            return None
        old = square_grid(value.numel() // dim)
        return bicubic(value.reshape(-1, dim), old, self.size, antialias=True) if old is not None else None
