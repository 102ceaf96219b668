"""Learnt tokens beside a map."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import same_size
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.token_rows import apart, beside


@part("add_tokens")
class AddTokens(Part):
    """Learnt tokens beside the map, behind those that there are: class tokens, register tokens.

    Shape: x_BHWC -> y_B1(E + L)C, E tokens and L = H * W positions; only the H and W it was built for.
    Cost: a parameter a channel of each; no multiply-adds.
    Reference: An Image is Worth 16x16 Words, ICLR 2021, https://arxiv.org/abs/2010.11929; registers: Vision
    Transformers Need Registers, ICLR 2024, https://arxiv.org/abs/2309.16588.
    """

    token_rule = "own"

    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """How many."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape._replace(extra=shape.extra + self.count)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost(self.count * shape.dim)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return self.out_shape(shape, dim).elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return AddTokensModule(shape, self.count)


class AddTokensModule(nn.Module):
    """See `AddTokens`."""

    def __init__(self, shape: Shape, count: int) -> None:
        super().__init__()
        self.extra, self.size = shape.extra, (shape.height, shape.width)
        self.tokens = nn.Parameter(torch.empty(count, shape.dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens.expand(x.shape[0], 1, -1, -1)
        if not self.extra:
            same_size(x, self.size, "add_tokens")
            return beside(tokens, x)
        before, x = apart(x, self.extra, self.size, "add_tokens")
        return torch.cat([before, tokens, x.flatten(1, 2).unsqueeze(1)], dim=2)

    def no_weight_decay(self) -> set[str]:
        return {"tokens"}

    def extra_repr(self) -> str:
        return f"count={len(self.tokens)}"
