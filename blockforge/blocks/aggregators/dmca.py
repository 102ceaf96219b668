"""SparX's join: dynamic multi-layer channel aggregator."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Aggregator, Cost, Shape, divisible
from blockforge.blocks.fields import Count, NormParam
from blockforge.blocks.layers import Conv2d, DWConv, Linear
from blockforge.blocks.leaves import layout_of, on_map, on_nchw
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.group_norm import GroupNorm
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import aggregator
from blockforge.errors import OpError
from blockforge.kernels.channel_attention import channel_attention
from blockforge.kernels.channel_attention import workspace as attention_workspace
from blockforge.kernels.cpu import activate, untouched

PARTS = 3
"""What is joined at last: the input, what it found in the sources, and the sources."""


@aggregator("dmca")
class DMCA(Aggregator):
    """Cross-layer channel attention: the sources give keys and values, the layer's input the queries, and
    channels attend to channels, in groups. Input, result and values are then mixed to the width asked for.

    The attention's scale is that of the number of positions. Where the reduced queries are as large as the
    map, which is always so without reduction, they take the place of the input. The last convolution gives a
    multiple of 3 channels; what the width asked for lacks are means over them.

    Shape: x_BHWC and sources_BHW* -> y_BHWD, any H and W.
    Cost: with S channels of sources about S (2 C + 9) + C^2 (1 + 2 / reduction^2 + 1 / groups) + C (D + 27)
    multiply-adds a position.
    Raises: OpError if `groups` does not divide C, or D is less than 3.
    Reference: SparX, AAAI 2025, https://arxiv.org/abs/2409.09649, section 3.2.
    """

    reduction: Count = 1
    """Stride by which queries and keys shrink the map, with a kernel of one more; 1: they do not."""
    groups: Count = 4
    """Groups of the channel attention."""
    norm: NormParam = GroupNorm()
    """Norm over the sources side by side, or none."""

    def reduced(self, shape: Shape) -> Shape:
        """The map of the queries and keys."""
        r = self.reduction
        return shape if r == 1 else conv_shape(shape, shape.dim, r + 1, r)

    def check(self, shape: Shape, sources: tuple[int, ...], dim: int) -> None:
        divisible(shape.dim, self.groups, "dim", "groups", "groups")
        if dim < PARTS:
            raise OpError(f"it cannot give a map of width {dim}", hint=f"{PARTS} is the least")
        if self.norm is not None:
            self.norm.check(shape._replace(dim=sum(sources)))

    def cost(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Cost:
        width, joined, positions = shape.dim, sum(sources), shape.positions
        small, head = self.reduced(shape).positions, width // self.groups
        cost = primitives.dwconv(joined, (3, 3), positions, bias=False) + primitives.norm(joined)
        cost += primitives.linear(joined, 2 * width, positions)
        for _ in range(2):  # queries and keys
            if self.reduction > 1:
                kernel = (self.reduction + 1, self.reduction + 1)
                cost += primitives.dwconv(width, kernel, small, bias=False) + primitives.norm(width)
            cost += primitives.linear(width, width, small, bias=False) + primitives.norm(width)
        cost += primitives.linear(width, width, positions, bias=False) + primitives.norm(width)
        cost += primitives.matmul(head, small, head, self.groups)
        cost += primitives.matmul(head, head, positions, self.groups)
        cost += primitives.dwconv(PARTS * width, (3, 3), positions)
        cost += primitives.conv(PARTS * width, dim // PARTS * PARTS, (1, 1), positions, groups=PARTS)
        return cost + (self.norm.cost(shape._replace(dim=joined)) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, sources: tuple[int, ...], dim: int) -> int:
        width, positions = shape.elements, shape.positions
        joined, small = sum(sources) * positions, self.reduced(shape)
        attention = attention_workspace(positions, small.positions, shape.dim, self.groups)
        norm = self.norm.workspace(shape._replace(dim=sum(sources))) if self.norm is not None else 0
        given = positions * (dim // PARTS * PARTS)
        missing = dim % PARTS
        return max(
            joined + max(norm, joined),
            joined + 2 * width,  # keys, then values, before and after their activation
            joined + small.elements + 2 * width,
            2 * width + 2 * small.elements,
            2 * small.elements + width + attention,
            6 * width,  # the joined map before and after it is mixed
            3 * width + given,
            (2 * given + 2 * positions * missing) * (missing > 0),
        )

    def build(self, shape: Shape, sources: tuple[int, ...], dim: int) -> nn.Module:
        joined = shape._replace(dim=sum(sources))
        norm = self.norm.build(joined) if self.norm is not None else nn.Identity()
        return DMCAModule(shape.dim, joined.dim, dim, self.reduction, self.groups, norm)


class DMCAModule(nn.Module):
    """See `DMCA`. `width` are the channels that it reads, `joined` those of the sources, `dim` those that it gives."""

    def __init__(self, width: int, joined: int, dim: int, reduction: int, groups: int, norm: nn.Module) -> None:
        super().__init__()
        self.groups, self.missing = groups, dim % PARTS
        self.norm, self.norm_layout = norm, layout_of(norm)
        self.dwconv = DWConv(joined, 3, bias=False, init="trunc_normal")
        self.bn = nn.BatchNorm2d(joined)
        self.act = nn.GELU()
        self.k_in, self.v_in = Linear(joined, width), Linear(joined, width)
        self.q, self.k = _reducing(width, reduction), _reducing(width, reduction)
        self.v = _reducing(width, 1)
        self.mix = DWConv(PARTS * width, 3, init="trunc_normal")
        self.proj = Conv2d(PARTS * width, dim - self.missing, 1, groups=PARTS, init="trunc_normal")

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        k, v = self.read(sources)
        q = self.q(x)
        if q.shape == x.shape:
            x = q
        y = self.joined(x, q, k, v)
        del x, q, k, v
        y = on_nchw(self.mix, y)
        y = activate(self.act, y, untouched(self.mix, DWConv))
        y = on_nchw(self.proj, y)
        return self.filled(y) if self.missing else y

    def read(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Keys, reduced, and values of the sources."""
        s = on_map(self.norm, torch.cat(sources, dim=-1), self.norm_layout)
        s = on_nchw(self.dwconv, s)
        s = on_nchw(self.bn, s)
        s = activate(self.act, s, untouched(self.bn, nn.BatchNorm2d))
        k = self.k(activate(self.act, self.k_in(s), untouched(self.k_in, Linear)))
        v = self.v_in(s)
        del s
        return k, self.v(activate(self.act, v, untouched(self.v_in, Linear)))

    def joined(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """x, what its channels find in the values, and the values, their channels interleaved."""
        x_BLC, q_BPC, k_BPC, v_BLC = (t.flatten(1, 2) for t in (x, q, k, v))
        return channel_attention(x_BLC, q_BPC, k_BPC, v_BLC, self.groups).unflatten(1, x.shape[1:3])

    def filled(self, y: Tensor) -> Tensor:
        """y and, for the channels that it lacks, means over equal shares of its channels."""
        dim, missing = y.shape[-1], self.missing
        shares = (y[..., dim * i // missing : -(-dim * (i + 1) // missing)] for i in range(missing))
        return torch.cat([y, *(share.mean(-1, keepdim=True) for share in shares)], dim=-1)


def _reducing(dim: int, reduction: int) -> Maps:
    """A linear layer with BatchNorm, behind a strided depth-wise convolution if the map shrinks."""
    steps: dict[str, nn.Module] = {}
    if reduction > 1:
        kernel, padding = reduction + 1, (reduction + 1) // 2
        steps["reduce"] = Conv2d(
            dim, dim, kernel, stride=reduction, padding=padding, groups=dim, bias=False, init="trunc_normal"
        )
        steps |= {"reduce_bn": nn.BatchNorm2d(dim), "act": nn.GELU()}
    return Maps(OrderedDict(steps, linear=Linear(dim, dim, bias=False), bn=nn.BatchNorm2d(dim)))
