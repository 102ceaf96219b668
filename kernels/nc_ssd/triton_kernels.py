"""Triton kernels of non-causal state space duality.

Letters: L length, Q positions of a tile, H heads, G groups, P width of a head, N states. P and N are filled up to
powers of two, `WIDTH` and `STATES`; what is beyond the end is read as 0. All arithmetic is in float32;
`PRECISION` is that of the products.

Tensors come with their strides: x_BLHP and alike with 4, m_BLH with 3, B_BLGN with 4. States are contiguous,
(B, H, N, P).
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(ptr, rows, rows_inside, stride_row, cols, cols_inside, stride_col):
    """A matrix as float32; 0 where it has nothing."""
    inside = rows_inside[:, None] & cols_inside[None, :]
    return tl.load(ptr + rows[:, None] * stride_row + cols[None, :] * stride_col, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def gather(
    x_ptr, m_ptr, B_ptr, out_ptr,
    xb, xl, xh, xp, mb, ml, mh, Bb, Bl, Bg, Bn,
    L, H, G, N, P, TILES,
    HAS_M: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial states, (B, H, parts, N, P): the sum of m B x over `TILES` tiles of positions. Grid (parts, B * H)."""
    part, head = tl.program_id(0), tl.program_id(1) % H
    batch = (tl.program_id(1) // H).to(tl.int64)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    x_ptr += batch * xb + head * xh
    B_ptr += batch * Bb + (head % G) * Bg
    state = tl.zeros((STATES, WIDTH), dtype=tl.float32)
    for i in range(TILES):
        t = ((part * TILES + i) * Q + tl.arange(0, Q)).to(tl.int64)
        x = _tile(x_ptr, t, t < L, xl, p, p < P, xp)
        B = _tile(B_ptr, t, t < L, Bl, n, n < N, Bn)
        if HAS_M:
            B *= tl.load(m_ptr + batch * mb + t * ml + head * mh, mask=t < L, other=0.0).to(tl.float32)[:, None]
        state += tl.dot(tl.trans(B), x, input_precision=PRECISION)
    out_ptr += (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + part) * N * P
    tl.store(out_ptr + n[:, None] * P + p[None, :], state, mask=(n < N)[:, None] & (p < P)[None, :])


@triton.jit
def read(
    x_ptr, C_ptr, D_ptr, states_ptr, y_ptr,
    xb, xl, xh, xp, Cb, Cl, Cg, Cn, yb, yl, yh, yp,
    L, H, G, N, P,
    HAS_D: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = C h + D x of a tile of positions. Grid (tiles, B * H)."""
    head, batch = tl.program_id(1) % H, (tl.program_id(1) // H).to(tl.int64)
    t = (tl.program_id(0) * Q + tl.arange(0, Q)).to(tl.int64)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    C = _tile(C_ptr + batch * Cb + (head % G) * Cg, t, t < L, Cl, n, n < N, Cn)
    state = _tile(states_ptr + tl.program_id(1).to(tl.int64) * N * P, n, n < N, P, p, p < P, 1)
    y = tl.dot(C, state, input_precision=PRECISION)
    if HAS_D:
        x = _tile(x_ptr + batch * xb + head * xh, t, t < L, xl, p, p < P, xp)
        y += tl.load(D_ptr + head).to(tl.float32) * x
    y_ptr += batch * yb + head * yh
    mask = (t < L)[:, None] & (p < P)[None, :]
    tl.store(y_ptr + t[:, None] * yl + p[None, :] * yp, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gradients(
    dy_ptr, x_ptr, m_ptr, B_ptr, C_ptr, D_ptr, states_ptr, of_states_ptr,
    dx_ptr, dm_ptr, dB_ptr, dC_ptr, dD_ptr,
    gb, gl, gh, gp, xb, xl, xh, xp, mb, ml, mh, Bb, Bl, Bg, Bn, Cb, Cl, Cg, Cn,
    L, H, G, N, P,
    HAS_M: tl.constexpr, HAS_D: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of a tile of positions, from the state and its gradient. Gradients are contiguous; that of D
    one value a tile, (B, H, tiles). Grid (tiles, B * G): the heads of a group one after the other, which adds up
    their gradients of B and C without atomics."""
    group, batch = tl.program_id(1) % G, (tl.program_id(1) // G).to(tl.int64)
    t = (tl.program_id(0) * Q + tl.arange(0, Q)).to(tl.int64)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    inside = t < L
    B = _tile(B_ptr + batch * Bb + group * Bg, t, inside, Bl, n, n < N, Bn)
    dB, dC = tl.zeros((Q, STATES), dtype=tl.float32), tl.zeros((Q, STATES), dtype=tl.float32)
    for i in range(H // G):
        head = i * G + group
        x = _tile(x_ptr + batch * xb + head * xh, t, inside, xl, p, p < P, xp)
        dy = _tile(dy_ptr + batch * gb + head * gh, t, inside, gl, p, p < P, gp)
        at = batch * H + head
        state = _tile(states_ptr + at * N * P, n, n < N, P, p, p < P, 1)
        of_state = _tile(of_states_ptr + at * N * P, n, n < N, P, p, p < P, 1)
        dC += tl.dot(dy, tl.trans(state), input_precision=PRECISION)
        of_B = tl.dot(x, tl.trans(of_state), input_precision=PRECISION)
        dx = tl.dot(B, of_state, input_precision=PRECISION)
        row = (batch * L + t) * H + head
        if HAS_M:
            m = tl.load(m_ptr + batch * mb + t * ml + head * mh, mask=inside, other=0.0).to(tl.float32)
            tl.store(dm_ptr + row, tl.sum(dx * x, 1).to(dm_ptr.dtype.element_ty), mask=inside)
            of_B *= m[:, None]
            dx *= m[:, None]
        dB += of_B
        if HAS_D:
            dx += tl.load(D_ptr + head).to(tl.float32) * dy
            tl.store(dD_ptr + at * tl.num_programs(0) + tl.program_id(0), tl.sum(x * dy))
        mask = inside[:, None] & (p < P)[None, :]
        tl.store(dx_ptr + row[:, None] * P + p[None, :], dx.to(dx_ptr.dtype.element_ty), mask=mask)
    at_n = ((batch * L + t) * G + group)[:, None] * N + n[None, :]
    mask = inside[:, None] & (n < N)[None, :]
    tl.store(dB_ptr + at_n, dB.to(dB_ptr.dtype.element_ty), mask=mask)
    tl.store(dC_ptr + at_n, dC.to(dC_ptr.dtype.element_ty), mask=mask)
