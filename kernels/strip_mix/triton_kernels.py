"""Triton kernels of group strip mixing: products that read and write the map where it lies.

Letters: S lines, L positions of a line, C channels, G groups, n one of the N = B * S * (C / G) lines of one channel
that a group's weights are applied to, k one of `STRIP` neighbouring lines. What is beyond an edge is read as 0. All
arithmetic is in float32; `PRECISION` is that of the products.

Tensors come with the strides of batch, line, position and channel, so rows, columns and parts of larger maps are alike.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _lines(n, group, S, G, P):
    """Batch, line and channel of each n."""
    return (n // (S * P)).to(tl.int64), (n // P) % S, (n % P) * G + group


@triton.jit
def _neighbours(ptr, pos_ptr, b, s, c, inside, i, L, S, sb, ss, sl, sc, ps, pl, pc, HAS_POS: tl.constexpr):
    """Positions i of lines s, (i, n), and their part of the position table; 0 where there are none."""
    mask = (i < L)[:, None] & (inside & (s >= 0) & (s < S))[None, :]
    x = tl.load(ptr + (b * sb + s * ss + c * sc)[None, :] + i[:, None] * sl, mask=mask, other=0.0).to(tl.float32)
    if HAS_POS:
        x += tl.load(pos_ptr + (s * ps + c * pc)[None, :] + i[:, None] * pl, mask=mask, other=0.0).to(tl.float32)
    return x


@triton.jit
def mix(
    x_ptr, pos_ptr, weight_ptr, bias_ptr, beside_ptr, y_ptr, joined_ptr,
    xb, xs, xl, xc, ps, pl, pc, ob, os, ol, oc, yb, ys, yl, yc, wo, wi,
    N, S, L, G, P, TILES_L, TILES_N,
    STRIP: tl.constexpr, OF_GRADIENT: tl.constexpr, HAS_BESIDE: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y[n, o] = bias[o] + sum over k, i of weight[o, i, k] (x + pos)[n + k - STRIP // 2, i], with weight
    (G, L, L, STRIP) of strides (L * L * STRIP, wo, wi, 1). A tile of the map beside it is copied to where it is joined.

    OF_GRADIENT: that of x from that of y: the neighbours in reversed order, no position table, no bias.
    Grid (G * TILES_L * TILES_N): the groups side by side, because their channels are.
    """
    group, tile = tl.program_id(0) % G, tl.program_id(0) // G
    o = (tile % TILES_L) * BLOCK_L + tl.arange(0, BLOCK_L)
    n = (tile // TILES_L) * BLOCK_N + tl.arange(0, BLOCK_N)
    b, s, c = _lines(n, group, S, G, P)
    weight_ptr += group.to(tl.int64) * L * L * STRIP
    y = tl.zeros((BLOCK_L, BLOCK_N), dtype=tl.float32)
    for k in range(STRIP):
        at = STRIP - 1 - k if OF_GRADIENT else k
        for first in range(0, L, BLOCK_K):
            i = first + tl.arange(0, BLOCK_K)
            x = _neighbours(
                x_ptr, pos_ptr, b, s + k - STRIP // 2, c, n < N, i, L, S, xb, xs, xl, xc, ps, pl, pc, not OF_GRADIENT
            )
            w_mask = (o < L)[:, None] & (i < L)[None, :]
            weight = tl.load(weight_ptr + o[:, None] * wo + i[None, :] * wi + at, mask=w_mask, other=0.0)
            y += tl.dot(weight.to(tl.float32), x, input_precision=PRECISION)
    if not OF_GRADIENT:
        y += tl.load(bias_ptr + group * L + o, mask=o < L, other=0.0).to(tl.float32)[:, None]
    mask = (o < L)[:, None] & (n < N)[None, :]
    to = (b * yb + s * ys + c * yc)[None, :] + o[:, None] * yl
    tl.store(y_ptr + to, y.to(y_ptr.dtype.element_ty), mask=mask)
    if HAS_BESIDE:
        beside = tl.load(beside_ptr + (b * ob + s * os + c * oc)[None, :] + o[:, None] * ol, mask=mask, other=0.0)
        tl.store(joined_ptr + to, beside.to(joined_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gradients(
    dy_ptr, x_ptr, pos_ptr, dweight_ptr, dbias_ptr,
    gb, gs, gl, gc, xb, xs, xl, xc, ps, pl, pc,
    N, S, L, G, P, TILES, PARTS, TILES_A_PART,
    STRIP: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial gradients of the weight, (PARTS, G, L, L, STRIP), and of the bias, (PARTS, G, L): the sums over
    `TILES_A_PART` tiles of n. Grid (G * PARTS * TILES * TILES * STRIP)."""
    group, rest = tl.program_id(0) % G, tl.program_id(0) // G
    part, tile = rest % PARTS, rest // PARTS
    k, tile = tile % STRIP, tile // STRIP
    o = (tile // TILES) * BLOCK_L + tl.arange(0, BLOCK_L)
    i = (tile % TILES) * BLOCK_L + tl.arange(0, BLOCK_L)
    dweight = tl.zeros((BLOCK_L, BLOCK_L), dtype=tl.float32)
    dbias = tl.zeros((BLOCK_L,), dtype=tl.float32)
    for t in range(TILES_A_PART):
        n = (part * TILES_A_PART + t) * BLOCK_N + tl.arange(0, BLOCK_N)
        b, s, c = _lines(n, group, S, G, P)
        dy = _neighbours(dy_ptr, dy_ptr, b, s, c, n < N, o, L, S, gb, gs, gl, gc, 0, 0, 0, False)
        x = _neighbours(x_ptr, pos_ptr, b, s + k - STRIP // 2, c, n < N, i, L, S, xb, xs, xl, xc, ps, pl, pc, True)
        dweight += tl.dot(dy, tl.trans(x), input_precision=PRECISION)
        dbias += tl.sum(dy, 1)
    first = (part.to(tl.int64) * G + group) * L
    mask = (o < L)[:, None] & (i < L)[None, :]
    tl.store(dweight_ptr + ((first + o)[:, None] * L + i[None, :]) * STRIP + k, dweight, mask=mask)
    if (k == 0) & (tile % TILES == 0):
        tl.store(dbias_ptr + first + o, dbias, mask=o < L)
