"""Scale-aware modulation: multi-head mixed convolution and its aggregation, as a modulator of values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, divisible
from blockforge.blocks.fields import Count
from blockforge.blocks.layers import Conv2d, DWConv, Linear
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError
from blockforge.kernels.cpu import activate, untouched
from blockforge.kernels.mixed_conv import mixed_conv

MAX_HEADS = 16


@mixer("sam")
class SAM(Mixer):
    """Scale-aware modulation. Channels are split into heads, each with a depth-wise convolution of its own
    size (3, 5, 7, ...); one channel of every head form a group that is mixed (SAA), and the result multiplies
    the values.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 3 linear layers, one depth-wise convolution a head, a grouped and a dense 1x1 convolution.
    Raises: OpError if `num_heads` does not divide dim.
    Reference: Scale-Aware Modulation Meet Transformer, ICCV 2023, section 3.1, https://arxiv.org/abs/2307.08579.
    """

    num_heads: Count = 4
    """Heads; head i has a kernel of 3 + 2 i."""
    expand: Count = 2
    """Width of the aggregation, times dim."""
    mixed: bool = True
    """Kernels that grow from head to head; false: 3 in every head (the paper's ablation)."""
    aggregate: bool = True
    """The aggregation (SAA) between the convolutions and the product; false: none (the paper's ablation)."""

    def kernel_sizes(self) -> tuple[int, ...]:
        """Side of each head's kernel."""
        return tuple(3 + 2 * i * self.mixed for i in range(self.num_heads))

    def check(self, shape: Shape) -> None:
        if self.num_heads > MAX_HEADS:
            text = f"num_heads {self.num_heads} gives a kernel of {1 + 2 * self.num_heads}"
            raise OpError(text, hint=f"at most {MAX_HEADS} heads", param="num_heads")
        divisible(shape.dim, self.num_heads, "dim", "num_heads", "num_heads")

    def cost(self, shape: Shape) -> Cost:
        dim, hidden, positions, heads = shape.dim, shape.dim * self.expand, shape.positions, self.num_heads
        cost = Cost()
        for _ in range(3):  # values, modulator, output
            cost += primitives.linear(dim, dim, positions)
        for side in self.kernel_sizes():
            cost += primitives.dwconv(dim // heads, (side, side), positions)
        if not self.aggregate:
            return cost
        cost += primitives.conv(dim, hidden, (1, 1), positions, groups=dim // heads)
        return cost + primitives.norm(hidden) + primitives.linear(hidden, dim, positions)

    def workspace(self, shape: Shape) -> int:
        return shape.elements * max(3, 2 * self.expand * self.aggregate)  # at the interleaving, at the BatchNorm

    def build(self, shape: Shape) -> nn.Module:
        return SAMModule(shape.dim, self.kernel_sizes(), self.expand if self.aggregate else None)


class SAMModule(nn.Module):
    """See `SAM`. `expand` None: without aggregation."""

    def __init__(self, dim: int, kernel_sizes: tuple[int, ...], expand: int | None) -> None:
        super().__init__()
        num_heads = len(kernel_sizes)
        self.v = Linear(dim, dim)
        self.s = Linear(dim, dim)
        self.convs = nn.ModuleList(DWConv(dim // num_heads, side) for side in kernel_sizes)
        self.aggregate = expand is not None
        if expand is not None:
            self.mix = Conv2d(dim, dim * expand, 1, groups=dim // num_heads)
            self.bn = nn.BatchNorm2d(dim * expand)
            self.act = nn.GELU()
            self.gather = Linear(dim * expand, dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        modulator = self.aggregated(x) if self.aggregate else self.mixed(x)
        return self.proj(modulator * self.v(x))

    def aggregated(self, x: Tensor) -> Tensor:
        x = on_nchw(self.bn, self.mixed(x))
        return self.gather(activate(self.act, x, untouched(self.bn, nn.BatchNorm2d)))

    def mixed(self, x: Tensor) -> Tensor:
        """The convolved heads, with the aggregation mixed: channel c of every head is a group of `mix`."""
        x = self.s(x)
        plain = all(untouched(conv, DWConv) for conv in self.convs)
        if plain and (not self.aggregate or untouched(self.mix, Conv2d)):
            convs: Any = self.convs
            mix: Any = (self.mix.weight, self.mix.bias) if self.aggregate else None
            return mixed_conv(x, [conv.weight for conv in convs], [conv.bias for conv in convs], mix)
        heads = zip(self.convs, x.chunk(len(self.convs), dim=-1), strict=True)
        y = torch.stack([on_nchw(conv, head) for conv, head in heads], dim=-1).flatten(-2)
        return on_nchw(self.mix, y) if self.aggregate else y
