"""Triton kernels of the selective scan: a program works on one chunk of positions and a block of channels.

Letters: Q positions of a chunk, K chunks, D channels of a block, N states. A tile is (Q, D). States are worked on one
after another, each with a scan along the positions of the tile; nothing of the size of (length, states, channels)
is stored. What lies beyond the end is read as 0: a step of 0 leaves a state as it is. All arithmetic is in float32.

u, delta, y and their gradients come with strides of batch, position and channel; B and C with those of batch, group,
state and position. `order` (int32) holds the positions as they are visited. A and the states of chunks are contiguous,
(channels, N) and (batch, K, channels, N).
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _join(a, x, b, y):
    """First h -> a h + x, then h -> b h + y."""
    return a * b, b * x + y


@triton.jit
def _where(order_ptr, L, per_group, blocks, Q: tl.constexpr, WIDTH: tl.constexpr):
    """Of this program: batch, chunk, group, block; positions and channels, and which there are."""
    k, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    g = block // blocks
    inner = block % blocks * WIDTH + tl.arange(0, WIDTH)
    t = k * Q + tl.arange(0, Q)
    pos = tl.load(order_ptr + t, mask=t < L, other=0).to(tl.int64)
    return b, k, g, block, pos, t < L, g * per_group + inner, inner < per_group


@triton.jit
def _chosen(order_ptr, k, L, i, Q: tl.constexpr):
    """The positions of numbers i in the order of the scan of a chunk, and which there are in the chunk."""
    there = (i >= 0) & (i < Q) & (k * Q + i < L)
    return tl.load(order_ptr + k * Q + i, mask=there, other=0).to(tl.int64), there


@triton.jit
def _tile(ptr, b, pos, channels, inside, sb, sp, sc):
    """A tile as float32; 0 where it has nothing."""
    return tl.load(ptr + b * sb + pos[:, None] * sp + channels[None, :] * sc, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _steps(raw, bias_ptr, channels, here, inside, SOFTPLUS: tl.constexpr):
    """The steps, and delta with its bias."""
    raw += tl.load(bias_ptr + channels, mask=here, other=0.0)[None, :]
    step = raw
    if SOFTPLUS:
        e = tl.exp(-tl.abs(raw))
        # log(1 + e); where 1 + e has lost e's digits, two terms of the series
        step = tl.maximum(raw, 0.0) + tl.where(e < 1e-3, e - e * e * 0.5, tl.log(1.0 + e))
    return tl.where(inside, step, 0.0), raw


@triton.jit
def _weights(ptr, b, g, n, pos, there, sb, sg, sn, sp):
    """B or C of one state at the tile's positions, (Q, 1)."""
    return tl.load(ptr + b * sb + g * sg + n * sn + pos * sp, mask=there, other=0.0).to(tl.float32)[:, None]


@triton.jit
def chunk_ends(
    v_ptr, delta_ptr, W_ptr, A_ptr, bias_ptr, order_ptr, ends_ptr, sums_ptr,
    vb, vp, vc, db, dp, dc, Wb, Wg, Wn, Wp, L, K, CHANNELS, N, PER_GROUP, BLOCKS,
    SOFTPLUS: tl.constexpr, OF_GRADIENT: tl.constexpr, Q: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to the state that leaves it, and the sum of its steps. With `OF_GRADIENT` (v: dy, W: C) what
    it adds to the gradient that it passes to the positions before it."""
    b, k, g, _, pos, there, channels, here = _where(order_ptr, L, PER_GROUP, BLOCKS, Q, WIDTH)
    inside = there[:, None] & here[None, :]
    step, _ = _steps(_tile(delta_ptr, b, pos, channels, inside, db, dp, dc), bias_ptr, channels, here, inside, SOFTPLUS)
    v = _tile(v_ptr, b, pos, channels, inside, vb, vp, vc)
    if OF_GRADIENT:
        way = tl.cumsum(step, 0)
    else:
        v *= step
        way = tl.cumsum(step, 0, reverse=True) - step
    row = (b * K + k) * CHANNELS + channels
    tl.store(sums_ptr + row, tl.sum(step, 0), mask=here)
    for n in range(N):
        A = tl.load(A_ptr + channels * N + n, mask=here, other=0.0)
        W = _weights(W_ptr, b, g, n, pos, there, Wb, Wg, Wn, Wp)
        tl.store(ends_ptr + row * N + n, tl.sum(v * W * tl.exp(way * A[None, :]), 0), mask=here)


@triton.jit
def pass_states(ends_ptr, sums_ptr, A_ptr, K, CHANNELS, N, BACKWARDS: tl.constexpr, BLOCK: tl.constexpr):
    """In place: what each chunk adds -> what enters each chunk."""
    i, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    inside = i < CHANNELS * N
    A = tl.load(A_ptr + i, mask=inside, other=0.0)
    state = tl.zeros((BLOCK,), tl.float32)
    for j in range(K):
        k = b * K + (K - 1 - j if BACKWARDS else j)
        added = tl.load(ends_ptr + k * CHANNELS * N + i, mask=inside, other=0.0)
        total = tl.load(sums_ptr + k * CHANNELS + i // N, mask=inside, other=0.0)
        tl.store(ends_ptr + k * CHANNELS * N + i, state, mask=inside)
        state = tl.exp(total * A) * state + added


@triton.jit
def chunk_outputs(
    u_ptr, delta_ptr, B_ptr, C_ptr, A_ptr, D_ptr, bias_ptr, order_ptr, states_ptr, y_ptr,
    ub, up, uc, db, dp, dc, Bb, Bg, Bn, Bp, Cb, Cg, Cn, Cp, yb, yp, yc, L, K, CHANNELS, N, PER_GROUP, BLOCKS,
    SOFTPLUS: tl.constexpr, ADD: tl.constexpr, Q: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y <- (with `ADD`: + ) the outputs of a chunk, from the state that enters it."""
    b, k, g, _, pos, there, channels, here = _where(order_ptr, L, PER_GROUP, BLOCKS, Q, WIDTH)
    inside = there[:, None] & here[None, :]
    step, _ = _steps(_tile(delta_ptr, b, pos, channels, inside, db, dp, dc), bias_ptr, channels, here, inside, SOFTPLUS)
    u = _tile(u_ptr, b, pos, channels, inside, ub, up, uc)
    y = u * tl.load(D_ptr + channels, mask=here, other=0.0)[None, :]
    row = (b * K + k) * CHANNELS + channels
    for n in range(N):
        A = tl.load(A_ptr + channels * N + n, mask=here, other=0.0)[None, :]
        entering = tl.load(states_ptr + row * N + n, mask=here, other=0.0)[None, :]
        added = step * u * _weights(B_ptr, b, g, n, pos, there, Bb, Bg, Bn, Bp)
        decay, h = tl.associative_scan((tl.exp(step * A), added), 0, _join)
        y += (h + decay * entering) * _weights(C_ptr, b, g, n, pos, there, Cb, Cg, Cn, Cp)
    at = y_ptr + b * yb + pos[:, None] * yp + channels[None, :] * yc
    if ADD:
        y += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, y, mask=inside)


@triton.jit
def chunk_gradients(
    u_ptr, delta_ptr, B_ptr, C_ptr, A_ptr, D_ptr, bias_ptr, order_ptr, states_ptr, passed_ptr, dy_ptr,
    du_ptr, ddelta_ptr, dB_ptr, dC_ptr, dA_ptr, dD_ptr, dbias_ptr,
    ub, up, uc, db, dp, dc, Bb, Bg, Bn, Bp, Cb, Cg, Cn, Cp, yb, yp, yc,
    L, K, CHANNELS, N, PER_GROUP, BLOCKS, ALL_BLOCKS,
    SOFTPLUS: tl.constexpr, ADD: tl.constexpr, Q: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradients of a chunk. du (with `ADD`: is added to) and ddelta are contiguous (batch, L, channels); dB and dC
    (batch, all blocks, L, N), dA (batch, K, channels, N), dD and dbias (batch, K, channels): parts of sums."""
    b, k, g, block, pos, there, channels, here = _where(order_ptr, L, PER_GROUP, BLOCKS, Q, WIDTH)
    inside = there[:, None] & here[None, :]
    raw = _tile(delta_ptr, b, pos, channels, inside, db, dp, dc)
    step, raw = _steps(raw, bias_ptr, channels, here, inside, SOFTPLUS)
    # From the last position to the first: the steps of the positions one later in the chunk (0 where there is none),
    # and dy. What runs backwards is read backwards: a scan of pairs with `reverse` is known to go wrong in Triton.
    i = tl.arange(0, Q)
    pos_next, there_next = _chosen(order_ptr, k, L, Q - i, Q)
    inside_next = there_next[:, None] & here[None, :]
    next_ = _tile(delta_ptr, b, pos_next, channels, inside_next, db, dp, dc)
    next_, _ = _steps(next_, bias_ptr, channels, here, inside_next, SOFTPLUS)
    pos_back, there_back = _chosen(order_ptr, k, L, Q - 1 - i, Q)
    dy_back = _tile(dy_ptr, b, pos_back, channels, there_back[:, None] & here[None, :], yb, yp, yc)
    pos_last, there_last = _chosen(order_ptr, k, L, i - 1, Q)
    inside_last = there_last[:, None] & here[None, :]
    last = _tile(delta_ptr, b, pos_last, channels, inside_last, db, dp, dc)
    last, _ = _steps(last, bias_ptr, channels, here, inside_last, SOFTPLUS)
    last *= _tile(u_ptr, b, pos_last, channels, inside_last, ub, up, uc)
    u = _tile(u_ptr, b, pos, channels, inside, ub, up, uc)
    dy = _tile(dy_ptr, b, pos, channels, inside, yb, yp, yc)
    row = (b * K + k) * CHANNELS + channels
    of_step, of_product = tl.zeros((Q, WIDTH), tl.float32), tl.zeros((Q, WIDTH), tl.float32)
    for n in range(N):
        A = tl.load(A_ptr + channels * N + n, mask=here, other=0.0)
        B = _weights(B_ptr, b, g, n, pos, there, Bb, Bg, Bn, Bp)
        # The state before each position, decayed: h without what the position adds. Their difference would lose
        # the digits of a state that has almost vanished.
        decay = tl.exp(step * A[None, :])
        added = last * _weights(B_ptr, b, g, n, pos_last, there_last, Bb, Bg, Bn, Bp)
        decay, kept = tl.associative_scan((decay, decay * added), 0, _join)
        kept += decay * tl.load(states_ptr + row * N + n, mask=here, other=0.0)[None, :]
        C = _weights(C_ptr, b, g, n, pos_back, there_back, Cb, Cg, Cn, Cp)
        decay, dh = tl.associative_scan((tl.exp(next_ * A[None, :]), dy_back * C), 0, _join)
        dh += decay * tl.load(passed_ptr + row * N + n, mask=here, other=0.0)[None, :]
        dh = tl.trans(tl.flip(tl.trans(dh)))  # older versions flip the last axis alone
        part = ((b * ALL_BLOCKS + block) * L + pos) * N + n
        tl.store(dC_ptr + part, tl.sum(dy * (kept + step * u * B), 1), mask=there)
        tl.store(dB_ptr + part, tl.sum(tl.where(inside, dh * step * u, 0.0), 1), mask=there)
        of_product += dh * B
        of_power = dh * kept
        of_step += of_power * A[None, :]
        tl.store(dA_ptr + row * N + n, tl.sum(of_power * step, 0), mask=here)
    du = of_product * step + dy * tl.load(D_ptr + channels, mask=here, other=0.0)[None, :]
    ddelta = of_step + of_product * u
    if SOFTPLUS:
        e = tl.exp(-tl.abs(raw))
        ddelta *= tl.where(raw > 0, 1.0, e) / (1.0 + e)
    ddelta = tl.where(inside, ddelta, 0.0)
    tl.store(dbias_ptr + row, tl.sum(ddelta, 0), mask=here)
    tl.store(dD_ptr + row, tl.sum(dy * u, 0), mask=here)
    at = (b * L + pos[:, None]) * CHANNELS + channels[None, :]
    tl.store(ddelta_ptr + at, ddelta, mask=inside)
    if ADD:
        du += tl.load(du_ptr + at, mask=inside, other=0.0)
    tl.store(du_ptr + at, du, mask=inside)
