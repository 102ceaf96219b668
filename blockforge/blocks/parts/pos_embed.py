"""A learnt vector for each position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import same_size
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.resize import bicubic, square_grid


@part("pos_embed")
class PosEmbed(Part):
    """A learnt vector for each position of the map, added to it; with `tokens` for each token beside it, too.

    Shape: x_BHWC -> y_BHWC, only the H and W it was built for.
    Cost: H * W * C parameters, and with `tokens` a parameter a channel of each token; no multiply-adds.
    Reference: An Image is Worth 16x16 Words, ICLR 2021, https://arxiv.org/abs/2010.11929.
    """

    token_rule = "own"

    tokens: bool | None = None
    """Whether the tokens beside the map have vectors, too; absent: no."""

    def resolved(self, shape: Shape, dim: int | None) -> PosEmbed:
        return PosEmbed(tokens=True if self.tokens and shape.extra else None)

    def embedded(self, shape: Shape) -> Shape:
        """The positions that have a vector."""
        return shape if self.tokens else shape._replace(extra=0)

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost(self.embedded(shape).elements)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return PosEmbedModule(self.embedded(shape), shape)


class PosEmbedModule(nn.Module):
    """See `PosEmbed`. `embedded`: the positions that have a vector, of those of `shape`."""

    def __init__(self, embedded: Shape, shape: Shape) -> None:
        super().__init__()
        self.grid, self.prefix = (shape.height, shape.width), embedded.extra
        self.size, self.without = shape.row[:2], shape.extra - embedded.extra
        self.pos_embed = nn.Parameter(torch.empty(embedded.positions, shape.dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "pos_embed")
        vectors = F.pad(self.pos_embed, (0, 0, self.without, 0)) if self.without else self.pos_embed
        return x + vectors.view(x.shape[1:])

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def resized(self, name: str, value: Tensor) -> Tensor | None:
        """The vectors of another square map's positions, as DeiT's are resized; those of tokens stay apart."""
        dim = self.pos_embed.shape[1]
        if name != "pos_embed" or value.shape[-1] != dim:
            return None
        rows = value.reshape(-1, dim)
        old = square_grid(len(rows) - self.prefix)
        if old is None:
            return None
        return torch.cat([rows[: self.prefix], bicubic(rows[self.prefix :], old, self.grid, antialias=True)])
