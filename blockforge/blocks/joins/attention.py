"""The modules of `attend`: softmax attention and its linear form, of maps that hold queries, keys and values.

Shapes: B batch, H height, W width, C channels; N heads, L queries, S keys, D channels of a head.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.layers import Linear
from blockforge.blocks.rel_pos import Size
from blockforge.blocks.windows import is_symbolic
from blockforge.errors import OpError
from blockforge.kernels.attention import attention
from blockforge.kernels.observers import as_given

Order = Literal["by_role", "by_head"]
"""How the channels lie in a map that holds several of queries, keys and values."""
MOST = math.log(100)
"""The logarithm of the most that a cosine is multiplied by."""


class Splits(NamedTuple):
    """How queries, keys and values of each head are cut from so many maps. `sizes`: their channels in a head;
    `kv_heads`: 1 where all heads share keys and values."""

    maps: int
    num_heads: int
    kv_heads: int
    sizes: tuple[int, int, int]
    order: Order

    def cut(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, L, N, D), keys and values (B, S, N or 1, D): views."""
        if self.maps == 1:
            q, k, v = self._parts(maps[0], self.num_heads, self.sizes)
        elif self.maps == 2:
            (q,) = self._parts(maps[0], self.num_heads, self.sizes[:1])
            k, v = self._parts(maps[1], self.kv_heads, self.sizes[1:])
        else:
            heads = (self.num_heads, self.kv_heads, self.kv_heads)
            q, k, v = (self._parts(x, n, ())[0] for x, n in zip(maps, heads, strict=True))
        return q, k, v

    def _parts(self, x: Tensor, heads: int, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        x = x.flatten(1, 2)
        if len(sizes) < 2:
            return (x.unflatten(-1, (heads, -1)),)
        if self.order == "by_head":
            return tuple(x.unflatten(-1, (heads, -1)).split(sizes, dim=-1))
        return tuple(t.unflatten(-1, (heads, -1)) for t in x.split([heads * size for size in sizes], dim=-1))


class HeadsModule(nn.Module):
    """What both forms have in common: the heads, and norms of their queries and keys."""

    def __init__(self, splits: Splits, qk_norm: bool) -> None:
        super().__init__()
        self.splits = splits
        self.q_norm = nn.LayerNorm(splits.sizes[0]) if qk_norm else None
        self.k_norm = nn.LayerNorm(splits.sizes[1]) if qk_norm else None

    def split(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, L, D), keys and values (B, N or 1, S, D)."""
        q, k, v = self.splits.cut(maps)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class AttendModule(HeadsModule):
    """Softmax attention, see `Attend`. `sizes`: height and width of the queries and of the keys that its bias is
    built for; `grows`: whether the bias serves larger ones; `reads_queries`: whether it is made of the queries."""

    def __init__(
        self,
        splits: Splits,
        qk_norm: bool,
        cosine: bool,
        scale: float | None,
        bias: nn.Module | None,
        sizes: tuple[Size, Size] | None,
        grows: bool = False,
        reads_queries: bool = False,
    ) -> None:
        super().__init__(splits, qk_norm)
        self.scale = 1.0 if cosine else scale
        self.sizes, self.grows, self.reads_queries, self.rel_pos = sizes, grows, reads_queries, bias
        self.logit_scale = nn.Parameter(torch.empty(splits.num_heads, 1, 1)) if cosine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.logit_scale is not None:
            nn.init.constant_(self.logit_scale, math.log(10))

    def no_weight_decay(self) -> set[str]:
        return {"logit_scale"} if self.logit_scale is not None else set()

    def forward(self, *maps_BHWC: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of each map in the batch.

        Args:
            mask: (T, L, S) where a batch holds T tiles of each image, those of the first image first: True where a
                query may read a key, or numbers that are added to the logits. It is written out for the batch.
        """
        height, width = maps_BHWC[0].shape[1:3]
        q, k, v = self.split(maps_BHWC)
        if self.logit_scale is not None:
            q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=MOST).exp()
            k = F.normalize(k, dim=-1)
        if self.splits.kv_heads < self.splits.num_heads:
            k, v = (t.expand(-1, self.splits.num_heads, -1, -1) for t in (k, v))
        y = self.attended(q, k, v, self.added(q, maps_BHWC, mask))
        return y.transpose(1, 2).flatten(2).unflatten(1, (height, width))

    def attended(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
        """The values that each query finds, (B, N, L, D)."""
        return attention(q, k, v, added, self.scale)

    def added(self, q: Tensor, maps: tuple[Tensor, ...], mask: Tensor | None) -> Tensor | None:
        """What is added to the logits: the bias of the positions, and the mask of each tile."""
        bias: Tensor | None = None
        if self.rel_pos is not None:
            bias = self.rel_pos(q, self.tile(maps)) if self.reads_queries else self.rel_pos(self.tile(maps))
        if mask is None:
            return bias
        if bias is not None and self.reads_queries:
            return masked(bias, mask)
        mask = mask[:, None]
        if bias is not None:
            mask = bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
        images = maps[0].shape[0] // mask.shape[0]
        return mask.expand(images, *mask.shape).flatten(0, 1)

    def tile(self, maps: tuple[Tensor, ...]) -> Size | None:
        """The maps' size where it is not the one that the bias is built for. Raises: OpError if that does not serve."""
        assert self.sizes is not None
        (height, width), keys = ((x.shape[1], x.shape[2]) for x in (maps[0], maps[-1]))
        if is_symbolic(height, width, *keys):
            return (height, width) if self.sizes[0] == self.sizes[1] else None
        if ((height, width), keys) == self.sizes:
            return None
        most = (height, width) if self.grows else self.sizes[1]
        if keys != (height, width) or height > most[0] or width > most[1]:
            built, now = (f"{q[0]}x{q[1]} on {k[0]}x{k[1]}" for q, k in (self.sizes, ((height, width), keys)))
            text = f"attention with a bias of positions was built for maps of {built}, not {now}"
            raise OpError(text, hint="build the model for this size with input.size")
        return height, width


def masked(bias_BNLS: Tensor, mask_TLS: Tensor) -> Tensor:
    """A bias for each tile of a batch under the masks of these, in its own memory; see `AttendModule.forward`."""
    of_tiles, mask = bias_BNLS.unflatten(0, (-1, mask_TLS.shape[0])), mask_TLS[:, None]
    if mask.dtype == torch.bool:
        of_tiles.masked_fill_(~mask, -torch.inf)
    else:
        of_tiles.add_(mask)
    return bias_BNLS


class TalkingAttendModule(AttendModule):
    """Softmax attention whose heads are mixed, before the softmax and behind it."""

    def __init__(
        self,
        splits: Splits,
        qk_norm: bool,
        cosine: bool,
        scale: float | None,
        bias: nn.Module | None,
        sizes: tuple[Size, Size] | None,
        grows: bool = False,
        reads_queries: bool = False,
    ) -> None:
        super().__init__(splits, qk_norm, cosine, scale, bias, sizes, grows, reads_queries)
        self.mix_products = Linear(splits.num_heads, splits.num_heads)
        self.mix_weights = Linear(splits.num_heads, splits.num_heads)

    def attended(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        products = (q * scale) @ k.transpose(-1, -2)
        mixed = _mixed(self.mix_products, products if added is None else products + added)
        return _mixed(self.mix_weights, mixed.softmax(-1)) @ v


def _mixed(over_heads: nn.Module, x_BNLS: Tensor) -> Tensor:
    y: Tensor = over_heads(x_BNLS.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y


class LinearAttendModule(HeadsModule):
    """Attention whose weights are products, see `Attend`: keys and values are joined first. In float32 at least."""

    def __init__(self, splits: Splits, qk_norm: bool, eps: float) -> None:
        super().__init__(splits, qk_norm)
        self.eps = eps

    def forward(self, *maps_BHWC: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of each map in the batch. Raises: OpError for a mask: no position is left out of a sum."""
        if mask is not None:
            raise OpError("relu_linear cannot keep positions apart", hint="tiles without shift, or form: softmax")
        height, width = maps_BHWC[0].shape[1:3]
        q, k, v = self.split(maps_BHWC)
        with as_given(v):
            y = self.weighted(q, k, v, torch.promote_types(v.dtype, torch.float32)).to(v.dtype)
        return y.transpose(1, 2).flatten(2).unflatten(1, (height, width))

    def weighted(self, q: Tensor, k: Tensor, v: Tensor, exact: torch.dtype) -> Tensor:
        """The values that each query finds, (B, N, L, D). A channel of ones sums the weights."""
        joined = k.relu().to(exact).transpose(-1, -2) @ F.pad(v.to(exact), (0, 1), value=1.0)
        y = q.relu().to(exact) @ joined
        return y[..., :-1] / (y[..., -1:] + self.eps)


class ChannelProducts(HeadsModule):
    """Attention of a head's channels to each other by their products, see `Attend`."""

    def __init__(self, splits: Splits, scale: float | None = None) -> None:
        super().__init__(splits, qk_norm=False)
        self.scale = splits.sizes[0] ** -0.5 if scale is None else scale

    def weights(self, q_BNDL: Tensor, k_BNDL: Tensor) -> Tensor:
        """How channels fit each other, (B, N, D, D)."""
        return (q_BNDL @ k_BNDL.transpose(-1, -2)) * self.scale

    def forward(self, *maps_BHWC: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of each map in the batch. Raises: OpError for a mask: a channel is of all positions."""
        if mask is not None:
            raise OpError("channels cannot keep positions apart", hint="tiles without shift, or form: softmax")
        height, width = maps_BHWC[0].shape[1:3]
        q, k, v = (t.transpose(-1, -2) for t in self.split(maps_BHWC))
        y_BNDL = self.weights(q, k).softmax(-1) @ v
        return y_BNDL.permute(0, 3, 1, 2).flatten(2).unflatten(1, (height, width))


class ChannelAttendModule(ChannelProducts):
    """The same of queries and keys of length 1, times a learnt factor for each head."""

    def __init__(self, splits: Splits) -> None:
        super().__init__(splits)
        self.temperature = nn.Parameter(torch.empty(splits.num_heads, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.temperature)

    def no_weight_decay(self) -> set[str]:
        return {"temperature"}

    def weights(self, q_BNDL: Tensor, k_BNDL: Tensor) -> Tensor:
        lines = F.normalize(q_BNDL, dim=-1) @ F.normalize(k_BNDL, dim=-1).transpose(-1, -2)
        return lines * self.temperature
