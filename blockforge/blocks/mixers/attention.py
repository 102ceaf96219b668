"""Multi-head self-attention over all positions of a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, divisible
from blockforge.blocks.fields import Count, OddKernel
from blockforge.blocks.layers import DWConv, Linear, split_heads
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError

DEFAULT_HEAD_DIM = 32


@mixer("attention")
class Attention(Mixer):
    """Multi-head softmax attention over all H * W positions, optionally with a convolution of the values
    beside it (SMT's local positional encoding).

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 4 dim^2 a position for the projections, 2 L^2 dim for the products (L = H * W).
    Raises: OpError if the heads do not divide dim, or if both num_heads and head_dim are given.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762; local_conv: Scale-Aware Modulation
    Meet Transformer, ICCV 2023, section 3.2.
    """

    num_heads: Count | None = None
    """Heads; or say their width with `head_dim`."""
    head_dim: Count | None = None
    """Width of a head; 32 if neither it nor `num_heads` is given."""
    qkv_bias: bool = True
    """Bias of the query, key and value projections."""
    local_conv: OddKernel | None = None
    """Kernel of a depth-wise convolution of the values that is added to the result; absent: none."""

    def heads(self, dim: int) -> int:
        """Number of heads on a map of width `dim`."""
        return self.num_heads or max(1, dim // (self.head_dim or DEFAULT_HEAD_DIM))

    def check(self, shape: Shape) -> None:
        if self.num_heads and self.head_dim:
            raise OpError("num_heads and head_dim are both given", hint="one follows from the other", param="head_dim")
        if self.num_heads is None and shape.dim > (self.head_dim or DEFAULT_HEAD_DIM):
            divisible(shape.dim, self.head_dim or DEFAULT_HEAD_DIM, "dim", "head_dim", "head_dim")
        divisible(shape.dim, self.heads(shape.dim), "dim", "num_heads", "num_heads")

    def cost(self, shape: Shape) -> Cost:
        dim, positions = shape.dim, shape.positions
        cost = primitives.linear(dim, 3 * dim, positions, bias=self.qkv_bias)
        cost += primitives.matmul(positions, dim, positions) + primitives.matmul(positions, positions, dim)
        if self.local_conv is not None:
            cost += primitives.dwconv(dim, (self.local_conv, self.local_conv), positions)
        return cost + primitives.linear(dim, dim, positions)

    def workspace(self, shape: Shape) -> int:
        maps = 5 if self.local_conv is None else 6  # queries, keys, values, their mix, its projection or sum
        return maps * shape.elements + shape.positions * self.heads(shape.dim)

    def build(self, shape: Shape) -> nn.Module:
        return AttentionModule(shape.dim, self.heads(shape.dim), self.qkv_bias, self.local_conv)


class AttentionModule(nn.Module):
    """See `Attention`. The rows of `qkv` are queries, keys, values."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, local_conv: int | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.local_conv = DWConv(dim, local_conv) if local_conv is not None else None
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(*(split_heads(t, self.num_heads) for t in (q, k, v)))
        y = y.transpose(1, 2).flatten(2).unflatten(1, size)
        if self.local_conv is not None:
            y = y + self.local_conv(v.unflatten(1, size))
        return self.proj(y)
