"""Who is queries, keys and values in attention, and the memory that it takes."""

from __future__ import annotations

from typing import NamedTuple

from blockforge.blocks.base import Shape


class Roles(NamedTuple):
    """Queries, keys and values, wherever they lie, and the heads that share them. With `is_shared` all heads have the
    same keys and values."""

    q: Shape
    k: Shape
    v: Shape
    num_heads: int

    @property
    def is_shared(self) -> bool:
        return self.num_heads > 1 and self.k.dim * self.num_heads == self.q.dim

    @property
    def head_dim(self) -> int:
        return self.q.dim // self.num_heads

    @property
    def v_head_dim(self) -> int:
        return self.v.dim if self.is_shared else self.v.dim // self.num_heads

    @property
    def out(self) -> Shape:
        return self.q._replace(dim=self.num_heads * self.v_head_dim)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of a head's queries and of its values."""
        return self.head_dim, self.v_head_dim


# Elements that are alive at most inside attention. For plain products several heads are copied, shared ones for each.


def fused_elements(roles: Roles) -> int:
    """torch's fused attention: its result, and a sum of weights for each query."""
    return roles.out.elements + roles.q.positions * roles.num_heads


def product_elements(roles: Roles) -> int:
    """Attention by plain products, as torch has it where values are wider or narrower than keys."""
    copied, times = roles.num_heads > 1, roles.num_heads if roles.is_shared else 1
    q, k, v, out = roles.q.elements, roles.k.elements * times, roles.v.elements * times, roles.out.elements
    weights = roles.num_heads * roles.q.positions * roles.k.positions
    return max((1 + copied) * (q + k) + weights, q + 2 * weights, q + weights + v * copied + out, out * (1 + copied))


def linear_elements(roles: Roles) -> int:
    """Keys joined with values, then queries with both."""
    heads, of_keys = roles.num_heads, 1 if roles.is_shared else roles.num_heads
    copied, out = heads > 1, roles.out.elements
    joined = roles.head_dim * (roles.v_head_dim + 1)
    sums = heads * roles.q.positions
    return max(
        (1 + (of_keys > 1)) * roles.k.elements + roles.v.elements + of_keys * (roles.k.positions + joined),
        of_keys * joined + heads * joined * roles.is_shared + (1 + copied) * roles.q.elements + out + sums,
        of_keys * joined + 2 * (out + sums),
        (1 + copied) * out,
    )


def channel_elements(roles: Roles, normalized: bool) -> int:
    """Queries and keys, of length 1 if they are `normalized`, then the weights of the channels, then what these make of
    the values."""
    q, copied = roles.q.elements, roles.num_heads > 1
    weights = roles.num_heads * roles.head_dim**2
    return max(2 * (normalized + copied) * q + weights, 2 * weights, weights + (1 + copied) * q)
