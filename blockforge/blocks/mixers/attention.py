"""Multi-head self-attention: over all positions of a map, or within windows."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, TokenRule, divisible
from blockforge.blocks.computed import Computed
from blockforge.blocks.fields import Count, OddKernel
from blockforge.blocks.layers import DWConv, Linear, same_size
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.registry import mixer
from blockforge.blocks.rel_pos import RelativePositionBias, table_rows
from blockforge.blocks.windows import Windows, cut_windows, is_symbolic, join_windows, tiles_along
from blockforge.errors import OpError
from blockforge.kernels.attention import attention

DEFAULT_HEAD_DIM = 32


class Tiles(NamedTuple):
    """How a map is cut: `number` tiles of `height` x `width`, after a cyclic shift by `shift`."""

    height: int
    width: int
    shift: int
    number: int

    @property
    def positions(self) -> int:
        return self.height * self.width


class AttentionWeights(NamedTuple):
    """Attention of B maps, each in T tiles of L positions.

    Attributes:
        weights: (B * T, heads, L, L): of each query (row) over the keys; a row's sum is 1.
        positions: (T, L, 2): row and column of each position on the map; -1 in the padding.
    """

    weights: Tensor
    positions: Tensor


@mixer("attention")
class Attention(Mixer):
    """Multi-head softmax attention over all H * W positions, or within windows that the layer may shift;
    optionally with a learnt bias for each relative position, and with a convolution of the values beside it.

    A window that is at least as large as the map's shorter side shrinks to it and is not shifted. Maps that
    are no multiple of the window are padded with zeros right and below, as in Swin's code for detection. Windows,
    shift and mask are those of the map that comes. A bias belongs to a window: if that shrank to the map which the
    layer was built for, it does not grow again on a larger one; on a smaller one the middle of the bias serves.

    Shape: x_BHWC -> y_BHWC, any H and W; with `rel_pos_bias` but no window only the H and W it was built for.
    Cost: 4 dim inner a position for the projections, 2 L inner for the products (L = H * W, or window^2); inner is
        dim, or num_heads * head_dim if both are given.
    Raises: OpError if the heads do not divide dim, if the shift is not smaller than the window; at run time if the
        bias is of another size than the map.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762; window, shift and rel_pos_bias:
    Swin Transformer, ICCV 2021, section 3.2, https://arxiv.org/abs/2103.14030; local_conv: Scale-Aware
    Modulation Meet Transformer, ICCV 2023, section 3.2.
    """

    silent = frozenset({"bias"})

    num_heads: Count | None = None
    """Heads; or say their width with `head_dim`."""
    head_dim: Count | None = None
    """Width of a head; 32 if neither it nor `num_heads` is given. With both, attention has a width of its own."""
    qkv_bias: bool = True
    """Bias of the query, key and value projections."""
    qk_norm: bool = False
    """LayerNorm of the queries and of the keys of each head."""
    local_conv: OddKernel | None = None
    """Kernel of a depth-wise convolution of the values (within windows), added to the result; or none."""
    window: Count | None = None
    """Side of the windows; absent: the whole map is one."""
    shift: Annotated[int, Field(ge=0, le=4096)] | Literal["half"] = 0
    """Positions by which the windows are shifted, in both directions; half: half a window, rounded down."""
    rel_pos_bias: bool = False
    """A learnt bias of the logits for each head and relative position inside a window."""
    bias: bool | None = None
    """false: the projection behind the heads has no bias; absent: it has one."""

    def tokens_are(self) -> TokenRule:
        on_maps = self.window is not None or self.rel_pos_bias or self.local_conv is not None
        return "none" if on_maps else "all"

    @field_validator("shift")
    @classmethod
    def _within_window(cls, shift: int | str, info: ValidationInfo) -> int | str:
        window = info.data.get("window")
        if window is None and shift != 0:
            hint = "windows are shifted: give window too"
            raise OpError("there is a shift but no window", hint=hint, code="value")
        if isinstance(shift, int) and window is not None and shift >= window:
            hint = f"less than the window; Swin has half of it, {window // 2}"
            raise OpError(f"shift {shift} is not smaller than window {window}", hint=hint, code="value")
        return shift

    def heads(self, dim: int) -> int:
        """Number of heads on a map of width `dim`."""
        return self.num_heads or max(1, dim // (self.head_dim or DEFAULT_HEAD_DIM))

    def resolved(self, shape: Shape) -> Attention:
        own_width = self.num_heads is not None and self.inner(shape.dim) != shape.dim
        head_dim = self.head_dim if own_width else None
        return self.model_copy(update={"num_heads": self.heads(shape.dim), "head_dim": head_dim, "shift": self.steps})

    def inner(self, dim: int) -> int:
        """Width of the queries, and of the keys and values."""
        return self.num_heads * self.head_dim if self.num_heads and self.head_dim else dim

    def tiles(self, shape: Shape) -> Tiles:
        """The windows on this map."""
        if self.window is None:
            return Tiles(shape.height, shape.width, 0, 1)
        side, shift = Windows(self.window, self.steps).on(shape.height, shape.width)
        return Tiles(side, side, shift, tiles_along(shape.height, side) * tiles_along(shape.width, side))

    @property
    def steps(self) -> int:
        """Positions by which windows are shifted where the map is larger than they are."""
        return (self.window or 0) // 2 if self.shift == "half" else self.shift

    def check(self, shape: Shape) -> None:
        if self.num_heads is None and shape.dim > (self.head_dim or DEFAULT_HEAD_DIM):
            divisible(shape.dim, self.head_dim or DEFAULT_HEAD_DIM, "dim", "head_dim", "head_dim")
        if self.num_heads is None or self.head_dim is None:
            divisible(shape.dim, self.heads(shape.dim), "dim", "num_heads", "num_heads")

    def cost(self, shape: Shape) -> Cost:
        dim, tiles, heads, inner = shape.dim, self.tiles(shape), self.heads(shape.dim), self.inner(shape.dim)
        length, positions = tiles.positions, tiles.positions * tiles.number
        cost = primitives.linear(dim, 3 * inner, positions, bias=self.qkv_bias)
        cost += primitives.matmul(length, inner, length, tiles.number)
        cost += primitives.matmul(length, length, inner, tiles.number)
        if self.qk_norm:
            cost += primitives.norm(inner // heads) + primitives.norm(inner // heads)
        if self.rel_pos_bias:
            cost += Cost(params=table_rows((tiles.height, tiles.width)) * heads)
        if self.local_conv is not None:
            cost += primitives.dwconv(inner, (self.local_conv, self.local_conv), positions)
        return cost + primitives.linear(inner, dim, shape.positions, bias=self.bias is not False)

    def workspace(self, shape: Shape) -> int:
        tiles, dim, heads, inner = self.tiles(shape), shape.dim, self.heads(shape.dim), self.inner(shape.dim)
        positions = tiles.positions * tiles.number
        # what cutting copies: to pad, to shift and to put windows one behind the other
        copies = (positions != shape.positions) + (tiles.shift > 0) + (shape.width > tiles.width > 1)
        mixed = 4 + 2 * self.qk_norm  # maps: q, k, v, their mix, and the norms' results
        bias = positions * tiles.positions * (heads if self.rel_pos_bias else 1) * (tiles.shift > 0)  # for every window
        mask = bias if self.rel_pos_bias else bias // 4  # what there is before and behind: truth takes a byte
        return max(
            positions * min(2, copies) * dim + mask,
            positions * (min(1, copies) * dim + 3 * inner) + mask,
            positions * (mixed * inner + heads) + bias,
            positions * (mixed + 2) * inner * (self.local_conv is not None) + mask,
            positions * inner + shape.positions * (min(1, copies) * inner + dim) + mask,
        )

    def build(self, shape: Shape) -> nn.Module:
        dim, inner = shape.dim, self.inner(shape.dim)
        options = Options(
            inner if inner != dim else None, self.qkv_bias, self.qk_norm, self.local_conv, self.bias is not False
        )
        if self.window is None:
            size = shape[:2] if self.rel_pos_bias else None
            return AttentionModule(dim, self.heads(dim), *options, bias_size=size)
        side = self.tiles(shape).height if self.rel_pos_bias else self.window
        windows = Windows(side, self.steps if side == self.window else min(self.steps, side // 2))
        size = (side, side) if self.rel_pos_bias else None
        return WindowAttentionModule(dim, self.heads(dim), *options, bias_size=size, windows=windows, size=shape[:2])


class Options(NamedTuple):
    """What attention over a map and within windows have in common."""

    inner: int | None = None
    qkv_bias: bool = True
    qk_norm: bool = False
    local_conv: int | None = None
    proj_bias: bool = True


class AttentionModule(nn.Module):
    """See `Attention`. The rows of `qkv` are queries, keys, values. `inner`: their width, if it is not `dim`.
    `bias_size`: height and width of the tile whose positions have a learnt bias."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        inner: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        local_conv: int | None = None,
        proj_bias: bool = True,
        bias_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        inner, self.num_heads = inner or dim, num_heads
        self.qkv = Linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(inner // num_heads) if qk_norm else None
        self.k_norm = nn.LayerNorm(inner // num_heads) if qk_norm else None
        self.rel_pos = RelativePositionBias(bias_size, num_heads) if bias_size is not None else None
        self.local_conv = DWConv(inner, local_conv) if local_conv is not None else None
        self.proj = Linear(inner, dim, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        if self.rel_pos is not None:
            same_size(x, self.rel_pos.tile, "attention with rel_pos_bias")
            bias = self.rel_pos()
        return self.proj(self.attend(self.qkv(x), bias))

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """Attention over all positions of each map in the batch; `bias` is added to the logits."""
        q_BNLD, k_BNLD, v_BNLD = self.split(qkv)
        y = attention(q_BNLD, k_BNLD, v_BNLD, bias)
        # by hand: with sizes that vary, torch.export guards what einops asks of them
        y = y.transpose(1, 2).flatten(2).unflatten(1, qkv.shape[1:3])
        if self.local_conv is not None:
            y = y + on_nchw(self.local_conv, qkv.chunk(3, dim=-1)[2])
        return y

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head, (B, heads, L, head_dim)."""
        q_BLND, k_BLND, v_BLND = (t.unflatten(-1, (self.num_heads, -1)) for t in qkv.flatten(1, 2).chunk(3, dim=-1))
        if self.q_norm is not None and self.k_norm is not None:
            q_BLND, k_BLND = self.q_norm(q_BLND), self.k_norm(k_BLND)
        return q_BLND.transpose(1, 2), k_BLND.transpose(1, 2), v_BLND.transpose(1, 2)

    def attention_weights(self, x: Tensor) -> AttentionWeights:
        """What each position reads of which other one. `forward` never holds it whole; this is for analysis."""
        bias = self.rel_pos() if self.rel_pos is not None else None
        return AttentionWeights(self.scores(self.qkv(x), bias), positions_of(x).flatten(1, 2))

    def scores(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """The softmax of the logits of `attend`."""
        q_BNLD, k_BNLD, _ = self.split(qkv)
        logits: Tensor = q_BNLD @ k_BNLD.transpose(-2, -1) * q_BNLD.shape[-1] ** -0.5
        if bias is not None:
            logits = logits.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else logits + bias
        return logits.softmax(-1)


class WindowAttentionModule(AttentionModule, Computed):
    """See `Attention`. Runs on maps of any size, in windows of at most the side that its parameters are for. The
    mask of maps of `size` is kept."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        inner: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        local_conv: int | None = None,
        proj_bias: bool = True,
        bias_size: tuple[int, int] | None = None,
        *,
        windows: Windows,
        size: tuple[int, int],
    ) -> None:
        super().__init__(dim, num_heads, inner, qkv_bias, qk_norm, local_conv, proj_bias, bias_size)
        self.windows, self.size = windows, size
        self.hold_computed()

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        side, shift = self.windows.on(*self.size)
        return {"blocked": shift_mask(*self.size, side, shift, device=device)} if shift else {}

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        side, shift = self.windows.on(height, width)
        bias = self.bias(x)
        y = self.attend(self.qkv(cut_windows(x, side, shift)), bias)
        return self.proj(join_windows(y, side, height, width, shift))

    def attention_weights(self, x: Tensor) -> AttentionWeights:
        """As `AttentionModule.attention_weights`, one tile after the other."""
        _, height, width, _ = x.shape
        side, shift = self.windows.on(height, width)
        bias = self.bias(x)
        positions = cut_windows(positions_of(x) + 1, side, shift) - 1  # the padding's zeros become -1
        return AttentionWeights(self.scores(self.qkv(cut_windows(x, side, shift)), bias), positions.flatten(1, 2))

    def bias(self, x: Tensor) -> Tensor | None:
        """What is added to the logits for a map: one for all windows, or with a shift one for each."""
        batch, height, width, _ = x.shape
        side, shift = self.windows.on(height, width)
        bias = self.rel_pos((side, side)) if self.rel_pos is not None else None
        varies = is_symbolic(height, width)
        if self.windows.shift == 0 or (not varies and shift == 0):
            return bias
        if varies or (height, width) != self.size:
            blocked = shift_mask(height, width, side, shift, batch if varies else 1, device=x.device)
        else:
            blocked = self.held("blocked", x)
        bias = ~blocked if bias is None else bias.masked_fill(blocked, -torch.inf)
        return bias if varies else bias.expand(batch, *bias.shape).flatten(0, 1)


def positions_of(x: Tensor) -> Tensor:
    """Row and column of each position of x_BHWC: (1, H, W, 2)."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape[1:3])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)[None]


def shift_mask(
    height: int, width: int, side: int, shift: int, images: int = 1, device: torch.device | None = None
) -> Tensor:
    """Which positions of a window must not see each other, because the cyclic shift brought them together
    from opposite sides of the map: (images * windows, 1, L, L), True where blocked."""
    regions = []
    for size in (height, width):
        padded = tiles_along(size, side) * side
        at = torch.arange(padded, dtype=torch.int64, device=device)
        regions.append((at >= padded - side).long() + (at >= padded - shift).long())
    ids_HW = 3 * regions[0][:, None] + regions[1][None, :]
    ids = cut_windows(ids_HW.expand(images, -1, -1)[..., None], side).flatten(1)
    return (ids[:, :, None] != ids[:, None, :])[:, None]
