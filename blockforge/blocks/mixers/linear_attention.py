"""Attention whose cost is linear in the number of positions, with what Mamba-like designs put around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, TokenRule, divisible
from blockforge.blocks.computed import Computed
from blockforge.blocks.fields import Count, OddKernel
from blockforge.blocks.layers import DWConv, Linear, default_init
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError

EPS = 1e-6
"""Added to the sum of the weights before the division."""
ROPE_BASE = 10_000.0
DEFAULT_HEAD_DIM = 32


@mixer("linear_attention")
class LinearAttention(Mixer):
    """Attention with the kernel `elu + 1` in place of softmax: keys and values are joined over all positions
    first, in a head_dim x head_dim matrix a head. With `rope`, `local_conv`, `d_conv`, `gate` and without
    `project_values` it is the mixer of MLLA.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: (4 dim + 2 head_dim + 1) * dim multiply-adds a position; d_conv and gate add dim^2 each, no
        project_values takes dim^2 away.
    Raises: OpError if the heads do not divide dim, or if with `rope` 4 does not.
    Reference: Transformers are RNNs, ICML 2020, https://arxiv.org/abs/2006.16236; rope, local_conv, d_conv,
    gate: Demystify Mamba in Vision, NeurIPS 2024, https://arxiv.org/abs/2405.16605.
    """

    num_heads: Count | None = None
    """Heads; absent: as many as are 32 wide."""
    qkv_bias: bool = True
    """Bias of the query, key and value projections."""
    project_values: bool = True
    """A linear layer for the values; false: they are the input itself."""
    rope: bool = False
    """Rotate queries and keys by their position (not in the sum of the weights)."""
    local_conv: OddKernel | None = None
    """Kernel of a depth-wise convolution of the values that is added to the result; absent: none."""
    d_conv: OddKernel | None = None
    """Kernel of a depth-wise convolution in front, between a linear layer and silu; absent: none of them."""
    gate: bool = False
    """Multiply the result by silu of a linear layer of the input."""

    def tokens_are(self) -> TokenRule:
        on_maps = self.rope or self.local_conv is not None or self.d_conv is not None
        return "none" if on_maps else "all"

    def heads(self, dim: int) -> int:
        """Number of heads on a map of width `dim`."""
        return self.num_heads or max(1, dim // DEFAULT_HEAD_DIM)

    def resolved(self, shape: Shape) -> LinearAttention:
        return self.model_copy(update={"num_heads": self.heads(shape.dim)})

    def check(self, shape: Shape) -> None:
        divisible(shape.dim, self.heads(shape.dim), "dim", "num_heads", "num_heads")
        if self.rope and shape.dim % 4:
            hint = "pairs of channels turn by the row or by the column: 4 must divide dim"
            raise OpError(f"rope does not fit dim {shape.dim}", hint=hint, param="rope", code="divisibility")

    def cost(self, shape: Shape) -> Cost:
        dim, positions, heads = shape.dim, shape.positions, self.heads(shape.dim)
        head_dim = dim // heads
        cost = primitives.linear(dim, (2 + self.project_values) * dim, positions, bias=self.qkv_bias)
        cost += primitives.matmul(positions, head_dim, 1, heads)
        cost += primitives.matmul(head_dim, positions, head_dim, heads)
        cost += primitives.matmul(positions, head_dim, head_dim, heads)
        if self.local_conv is not None:
            cost += primitives.dwconv(dim, (self.local_conv, self.local_conv), positions)
        if self.d_conv is not None:
            cost += primitives.linear(dim, dim, positions)
            cost += primitives.dwconv(dim, (self.d_conv, self.d_conv), positions)
        if self.gate:
            cost += primitives.linear(dim, dim, positions)
        return cost + primitives.linear(dim, dim, positions)

    def workspace(self, shape: Shape) -> int:
        held = self.gate + (self.d_conv is not None)  # maps that live beside the attention
        base = held + 2 + 3 * self.project_values  # queries and keys; the projection, if it holds the values
        heads = self.heads(shape.dim)
        products = 2 * self.rope + (2 if heads > 1 else 1)  # several heads are copied for the products
        small = shape.dim * (shape.dim // heads) + shape.positions * heads
        made, ended = held + 4, base + 2 * (self.local_conv is not None)  # queries and keys; the attention
        return max((base + products) * shape.elements + small, max(made, ended) * shape.elements)

    def build(self, shape: Shape) -> nn.Module:
        return LinearAttentionModule(
            shape.dim,
            self.heads(shape.dim),
            qkv_bias=self.qkv_bias,
            project_values=self.project_values,
            rope=shape if self.rope else None,
            local_conv=self.local_conv,
            d_conv=self.d_conv,
            gate=self.gate,
        )


class LinearAttentionModule(nn.Module):
    """See `LinearAttention`. The rows of `qkv` are queries, keys and, if they are projected, values."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        project_values: bool = True,
        rope: Shape | None = None,
        local_conv: int | None = None,
        d_conv: int | None = None,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.gate = Linear(dim, dim) if gate else None
        self.fc = Linear(dim, dim) if d_conv is not None else None
        self.conv = DWConv(dim, d_conv) if d_conv is not None else None
        self.qkv = Linear(dim, (2 + project_values) * dim, bias=qkv_bias)
        self.rope = Rotation(rope) if rope is not None else None
        self.local_conv = DWConv(dim, local_conv) if local_conv is not None else None
        self.proj = Linear(dim, dim)
        for conv in (self.conv, self.local_conv):
            if conv is not None:
                default_init(conv)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.gate(x)) if self.gate is not None else None
        y = self.attend(self.local(x))
        return self.proj(y if gate is None else y * gate)

    def local(self, x: Tensor) -> Tensor:
        """What attends: the input, or its convolution."""
        if self.fc is None or self.conv is None:
            return x
        return F.silu(on_nchw(self.conv, self.fc(x)))

    def attend(self, x: Tensor) -> Tensor:
        """Attention over all positions, and the local convolution of the values."""
        parts = self.qkv(x).split(x.shape[-1], dim=-1)
        values = parts[2] if len(parts) > 2 else x
        q, k = (F.elu(t).add_(1) for t in parts[:2])
        del parts  # all that is left of the projection is the values
        y = self.weighted(q, k, values)
        return y.add_(on_nchw(self.local_conv, values)) if self.local_conv is not None else y

    def weighted(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The weighted values of each position; what divides the weights is their sum before the rotation."""
        k = k.mul_(1 / (k.shape[1] * k.shape[2]))  # sums over positions stay in half precision's range
        total = self.split(q) @ self.split(k).sum(2)[..., None]
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        joined = self.split(k).transpose(-2, -1) @ self.split(v)
        y = (self.split(q) @ joined).div_(total + EPS)
        return rearrange(y, "b n (h w) d -> b h w (n d)", h=v.shape[1], w=v.shape[2])

    def split(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, heads, L, head_dim), a view."""
        return rearrange(x, "b h w (n d) -> b n (h w) d", n=self.num_heads)


class Rotation(Computed):
    """Turns pairs of neighbouring channels, the first half of the pairs by an angle that grows with the row,
    the others with the column: x_BHWC -> x_BHWC."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.hold_computed()

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        cos, sin = (t.to(torch.get_default_dtype()) for t in self.tables(*self.shape, device=device))
        return {"cos": cos, "sin": sin}

    @staticmethod
    def tables(height: int, width: int, dim: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles, (H, W, C / 2)."""
        pairs = dim // 4
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        rows, columns, steps = (torch.arange(n, device=device, dtype=dtype) for n in (height, width, pairs))
        speeds = ROPE_BASE ** (-steps / pairs)
        down = (rows[:, None] * speeds)[:, None].expand(-1, width, -1)
        right = (columns[:, None] * speeds)[None].expand(height, -1, -1)
        angles = torch.cat([down, right], dim=-1)
        return angles.cos(), angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = self.held("cos", x), self.held("sin", x)
        if torch.compiler.is_exporting() or x.shape[1:3] != cos.shape[:2]:  # an exported graph may serve every size
            cos, sin = (t.to(x) for t in self.tables(x.shape[1], x.shape[2], x.shape[3], device=x.device))
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
