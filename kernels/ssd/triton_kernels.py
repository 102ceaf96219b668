"""Triton kernels of state space duality: a program works on one chunk of one sequence.

Letters: L length, Q positions of a chunk, K chunks, H heads, G groups, P width of a head, N states. P and N are
filled up to powers of two, `WIDTH` and `STATES`; what is beyond the end of a sequence or of a head is read as 0:
a step of 0 leaves a state as it is. All arithmetic is in float32; `PRECISION` is that of the products.

Tensors come with their strides: x_BLHP and alike with 4, dt_BLH with 3, B_BLGN with 4. States are contiguous
(B, H, K, N, P), whatever belongs to a chunk (B, H, K).
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _positions(chunk, L, REVERSE: tl.constexpr, Q: tl.constexpr):
    """Where the positions of a chunk lie in memory, and which there are."""
    t = chunk * Q + tl.arange(0, Q)
    return (L - 1 - t if REVERSE else t).to(tl.int64), t < L


@triton.jit
def _tile(ptr, rows, rows_inside, stride_row, cols, cols_inside, stride_col):
    """A matrix as float32; 0 where it has nothing."""
    inside = rows_inside[:, None] & cols_inside[None, :]
    return tl.load(ptr + rows[:, None] * stride_row + cols[None, :] * stride_col, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _row(ptr, rows, rows_inside, stride_row):
    """A vector as float32; 0 where it has nothing."""
    return tl.load(ptr + rows * stride_row, mask=rows_inside, other=0.0).to(tl.float32)


@triton.jit
def _to_end(dt_ptr, stride_l, A, chunk, L, REVERSE: tl.constexpr, Q: tl.constexpr):
    """The decay from each position to the chunk's end: a sum of the steps behind it, not a difference."""
    t = chunk * Q + tl.arange(0, Q) + 1
    pos = (L - 1 - t if REVERSE else t).to(tl.int64)
    later = _row(dt_ptr, pos, (t < L) & (tl.arange(0, Q) + 1 < Q), stride_l) * A
    return tl.exp(tl.cumsum(later, 0, reverse=True))


@triton.jit
def _decays(log, Q: tl.constexpr):
    """[t, s]: the decay from s to t; 0 where s > t. Each sum is its own: no difference of running sums."""
    t, s = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    sums = tl.cumsum(tl.where(t > s, log[:, None], 0.0), 0)
    return tl.where(t >= s, tl.exp(sums), 0.0)


@triton.jit
def chunk_states(
    x_ptr, dt_ptr, A_ptr, B_ptr, out_ptr, total_ptr,
    xb, xl, xh, xp, db, dl, dh, Bb, Bl, Bg, Bn,
    L, H, PER_GROUP, N, P, K,
    REVERSE: tl.constexpr, OF_GRADIENT: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What each chunk adds to the state that leaves it: sum of (decay to the end) dt B x. With `OF_GRADIENT` what
    it adds to the gradient of the state that enters it: sum of (decay from the start) B x, given C as B and dy
    as x. Also the sum of a chunk's logarithms of decays. Grid (K, B * H)."""
    chunk, head = tl.program_id(0), tl.program_id(1) % H
    batch, group = (tl.program_id(1) // H).to(tl.int64), head // PER_GROUP
    pos, inside = _positions(chunk, L, REVERSE, Q)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    dt_ptr += batch * db + head * dh
    A = tl.load(A_ptr + head).to(tl.float32)
    dt = _row(dt_ptr, pos, inside, dl)
    if OF_GRADIENT:
        weight = tl.where(inside, tl.exp(tl.cumsum(dt * A, 0)), 0.0)
    else:
        weight = dt * _to_end(dt_ptr, dl, A, chunk, L, REVERSE, Q)
    x = _tile(x_ptr + batch * xb + head * xh, pos, inside, xl, p, p < P, xp)
    B = _tile(B_ptr + batch * Bb + group * Bg, pos, inside, Bl, n, n < N, Bn) * weight[:, None]
    state = tl.dot(tl.trans(B), x, input_precision=PRECISION)
    at = tl.program_id(1).to(tl.int64) * K + chunk
    inner = (n < N)[:, None] & (p < P)[None, :]
    tl.store(out_ptr + at * N * P + n[:, None] * P + p[None, :], state, mask=inner)
    tl.store(total_ptr + at, tl.sum(dt * A, 0))


@triton.jit
def pass_states(
    states_ptr, total_ptr, K, SIZE, BACKWARDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """In place of what each chunk adds: what reaches it from the chunks before it (`BACKWARDS`: behind it).
    Grid (B * H, blocks of a state)."""
    head = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < SIZE
    state = tl.zeros((BLOCK,), dtype=tl.float32)
    for i in range(K):
        at = head * K + (K - 1 - i if BACKWARDS else i)
        ptr = states_ptr + at * SIZE + element
        added = tl.load(ptr, mask=inside, other=0.0)
        tl.store(ptr, state, mask=inside)
        state = tl.exp(tl.load(total_ptr + at)) * state + added


@triton.jit
def chunk_outputs(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, states_ptr, y_ptr,
    xb, xl, xh, xp, db, dl, dh, Bb, Bl, Bg, Bn, Cb, Cl, Cg, Cn, yb, yl, yh, yp,
    L, H, PER_GROUP, N, P, K,
    REVERSE: tl.constexpr, HAS_D: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y of a chunk from its x and the state that enters it. Grid (K, B * H)."""
    chunk, head = tl.program_id(0), tl.program_id(1) % H
    batch, group = (tl.program_id(1) // H).to(tl.int64), head // PER_GROUP
    pos, inside = _positions(chunk, L, REVERSE, Q)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    dt = _row(dt_ptr + batch * db + head * dh, pos, inside, dl)
    log = dt * tl.load(A_ptr + head).to(tl.float32)
    x = _tile(x_ptr + batch * xb + head * xh, pos, inside, xl, p, p < P, xp)
    B = _tile(B_ptr + batch * Bb + group * Bg, pos, inside, Bl, n, n < N, Bn)
    C = _tile(C_ptr + batch * Cb + group * Cg, pos, inside, Cl, n, n < N, Cn)
    at = tl.program_id(1).to(tl.int64) * K + chunk
    state = _tile(states_ptr + at * N * P, n, n < N, P, p, p < P, 1)
    weights = tl.dot(C, tl.trans(B), input_precision=PRECISION) * _decays(log, Q)
    y = tl.dot(weights, x * dt[:, None], input_precision=PRECISION)
    y += tl.dot(C, state, input_precision=PRECISION) * tl.exp(tl.cumsum(log, 0))[:, None]
    if HAS_D:
        y += tl.load(D_ptr + head).to(tl.float32) * x
    y_ptr += batch * yb + head * yh
    mask = inside[:, None] & (p < P)[None, :]
    tl.store(y_ptr + pos[:, None] * yl + p[None, :] * yp, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def head_gradients(
    dy_ptr, x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, states_ptr, of_states_ptr,
    dx_ptr, ddt_ptr, dA_ptr, dD_ptr,
    gb, gl, gh, gp, xb, xl, xh, xp, db, dl, dh, Bb, Bl, Bg, Bn, Cb, Cl, Cg, Cn,
    L, H, PER_GROUP, N, P, K,
    REVERSE: tl.constexpr, HAS_D: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of x, dt, A and D of a chunk, from the state that enters it and the gradient of the state that
    leaves it. Gradients are contiguous; those of A and D one value a chunk, (B, H, K). Grid (K, B * H)."""
    chunk, head = tl.program_id(0), tl.program_id(1) % H
    batch, group = (tl.program_id(1) // H).to(tl.int64), head // PER_GROUP
    pos, inside = _positions(chunk, L, REVERSE, Q)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    t, s = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    A = tl.load(A_ptr + head).to(tl.float32)
    dt_ptr += batch * db + head * dh
    dt = _row(dt_ptr, pos, inside, dl)
    log, to_end = dt * A, _to_end(dt_ptr, dl, A, chunk, L, REVERSE, Q)
    at = (batch * H + head) * K + chunk

    # A step's logarithm is in every decay that passes over it: from end to end of the chunk, from its start, to
    # its end, and inside it.
    state = _tile(states_ptr + at * N * P, n, n < N, P, p, p < P, 1)
    of_state = _tile(of_states_ptr + at * N * P, n, n < N, P, p, p < P, 1)
    of_log = tl.zeros((Q,), dtype=tl.float32) + tl.exp(tl.sum(log, 0)) * tl.sum(state * of_state)
    C = _tile(C_ptr + batch * Cb + group * Cg, pos, inside, Cl, n, n < N, Cn)
    came = tl.dot(C, state, input_precision=PRECISION) * tl.exp(tl.cumsum(log, 0))[:, None]
    dy = _tile(dy_ptr + batch * gb + head * gh, pos, inside, gl, p, p < P, gp)
    of_log += tl.cumsum(tl.sum(came * dy, 1), 0, reverse=True)
    B = _tile(B_ptr + batch * Bb + group * Bg, pos, inside, Bl, n, n < N, Bn)
    of_dtx = tl.dot(B, of_state, input_precision=PRECISION) * to_end[:, None]
    x = _tile(x_ptr + batch * xb + head * xh, pos, inside, xl, p, p < P, xp)
    read = tl.sum(of_dtx * x, 1) * dt
    weights = tl.dot(C, tl.trans(B), input_precision=PRECISION) * _decays(log, Q)
    of_weights = tl.dot(dy, tl.trans(x), input_precision=PRECISION) * dt[None, :]
    over = tl.cumsum(of_weights * weights, 0, reverse=True) + read[None, :]
    of_log += tl.sum(tl.where(t > s, over, 0.0), 1)
    of_dtx += tl.dot(tl.trans(weights), dy, input_precision=PRECISION)

    row = (batch * L + pos) * H + head
    ddt = tl.sum(of_dtx * x, 1) + A * of_log
    tl.store(ddt_ptr + row, ddt.to(ddt_ptr.dtype.element_ty), mask=inside)
    tl.store(dA_ptr + at, tl.sum(of_log * dt, 0))
    dx = of_dtx * dt[:, None]
    if HAS_D:
        dx += tl.load(D_ptr + head).to(tl.float32) * dy
        tl.store(dD_ptr + at, tl.sum(x * dy))
    mask = inside[:, None] & (p < P)[None, :]
    tl.store(dx_ptr + row[:, None] * P + p[None, :], dx.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def group_gradients(
    dy_ptr, x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, states_ptr, of_states_ptr, dB_ptr, dC_ptr,
    gb, gl, gh, gp, xb, xl, xh, xp, db, dl, dh, Bb, Bl, Bg, Bn, Cb, Cl, Cg, Cn,
    L, H, PER_GROUP, N, P, K,
    REVERSE: tl.constexpr,
    Q: tl.constexpr, STATES: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of B and C of a chunk, contiguous. Grid (K, B * G): the heads of a group one after the other,
    which adds up what they give without atomics."""
    chunk, group = tl.program_id(0), tl.program_id(1) % (H // PER_GROUP)
    batch = (tl.program_id(1) // (H // PER_GROUP)).to(tl.int64)
    pos, inside = _positions(chunk, L, REVERSE, Q)
    n, p = tl.arange(0, STATES), tl.arange(0, WIDTH)
    dB, dC = tl.zeros((Q, STATES), dtype=tl.float32), tl.zeros((Q, STATES), dtype=tl.float32)
    of_scores = tl.zeros((Q, Q), dtype=tl.float32)
    for i in range(PER_GROUP):
        head = group * PER_GROUP + i
        A = tl.load(A_ptr + head).to(tl.float32)
        dt_of_head = dt_ptr + batch * db + head * dh
        dt = _row(dt_of_head, pos, inside, dl)
        at = ((batch * H + head) * K + chunk) * N * P
        x = _tile(x_ptr + batch * xb + head * xh, pos, inside, xl, p, p < P, xp) * dt[:, None]
        dy = _tile(dy_ptr + batch * gb + head * gh, pos, inside, gl, p, p < P, gp)
        of_scores += tl.dot(dy, tl.trans(x), input_precision=PRECISION) * _decays(dt * A, Q)
        x *= _to_end(dt_of_head, dl, A, chunk, L, REVERSE, Q)[:, None]
        of_state_PN = _tile(of_states_ptr + at, p, p < P, 1, n, n < N, P)
        dB += tl.dot(x, of_state_PN, input_precision=PRECISION)
        dy *= tl.exp(tl.cumsum(dt * A, 0))[:, None]
        state_PN = _tile(states_ptr + at, p, p < P, 1, n, n < N, P)
        dC += tl.dot(dy, state_PN, input_precision=PRECISION)
    B = _tile(B_ptr + batch * Bb + group * Bg, pos, inside, Bl, n, n < N, Bn)
    dC += tl.dot(of_scores, B, input_precision=PRECISION)
    C = _tile(C_ptr + batch * Cb + group * Cg, pos, inside, Cl, n, n < N, Cn)
    dB += tl.dot(tl.trans(of_scores), C, input_precision=PRECISION)
    at_n = ((batch * L + pos) * (H // PER_GROUP) + group)[:, None] * N + n[None, :]
    mask = inside[:, None] & (n < N)[None, :]
    tl.store(dB_ptr + at_n, dB.to(dB_ptr.dtype.element_ty), mask=mask)
    tl.store(dC_ptr + at_n, dC.to(dC_ptr.dtype.element_ty), mask=mask)
