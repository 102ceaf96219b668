"""Triton kernels of channel attention.

Letters: L positions of a map, Q of a tile, C channels, G groups, N = C / G channels of a group. Matrices of a group
are cut into tiles of SIDE x SIDE; what is beyond an end is read as 0. All arithmetic is in float32; `PRECISION` is
that of the products.

Maps come with three strides; weights, scores and their gradients are contiguous, (B, G, N, N), partial sums of them
(B, G, parts, N, N). A channel of the three maps side by side stands in the joined map where `_place` says: channel
3 i + j at j C + i.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(channel, C):
    return (channel % 3) * C + channel // 3


@triton.jit
def _tile(ptr, rows, rows_inside, stride_row, cols, cols_inside, stride_col):
    """A matrix as float32; 0 where it has nothing."""
    inside = rows_inside[:, None] & cols_inside[None, :]
    return tl.load(ptr + rows[:, None] * stride_row + cols[None, :] * stride_col, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _put(ptr, value, rows, rows_inside, stride_row, cols, cols_inside, stride_col):
    inside = rows_inside[:, None] & cols_inside[None, :]
    at = ptr + rows[:, None] * stride_row + cols[None, :] * stride_col
    tl.store(at, value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def scores(
    a_ptr, b_ptr, out_ptr,
    ab, al, ac, bb, bl, bc,
    L, C, G, N, TILES,
    JOINED: tl.constexpr,
    Q: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums over `TILES` tiles of positions of a^T b, a group on its own. With `JOINED` a is the middle
    one of the three maps of a joined one. Grid (parts * sides * sides, B * G)."""
    sides = tl.cdiv(N, SIDE)
    part, i = tl.program_id(0) // (sides * sides), tl.program_id(0) // sides % sides
    batch, group = (tl.program_id(1) // G).to(tl.int64), tl.program_id(1) % G
    i = i * SIDE + tl.arange(0, SIDE)
    j = tl.program_id(0) % sides * SIDE + tl.arange(0, SIDE)
    of_a, of_b = group * N + i, group * N + j
    if JOINED:
        of_a = _place(C + of_a, C)
    total = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for tile in range(TILES):
        t = ((part * TILES + tile) * Q + tl.arange(0, Q)).to(tl.int64)
        a = _tile(a_ptr + batch * ab, t, t < L, al, of_a, i < N, ac)
        b = _tile(b_ptr + batch * bb, t, t < L, bl, of_b, j < N, bc)
        total += tl.dot(tl.trans(a), b, input_precision=PRECISION)
    parts = tl.num_programs(0) // (sides * sides)
    out_ptr += (tl.program_id(1).to(tl.int64) * parts + part) * N * N
    _put(out_ptr, total, i, i < N, N, j, j < N, 1)


@triton.jit
def _summed(ptr, matrix, parts, rows, cols, N):
    """Rows of a matrix that is given as partial sums."""
    ptr += matrix.to(tl.int64) * parts * N * N
    total = _tile(ptr, rows, rows < N, N, cols, cols < N, 1)
    for _ in range(1, parts):
        ptr += N * N
        total += _tile(ptr, rows, rows < N, N, cols, cols < N, 1)
    return total


@triton.jit
def softmax(scores_ptr, weights_ptr, scale, parts, N, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The weights of some rows of a group. Grid (tiles of rows, B * G)."""
    rows, cols = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE)
    s = _summed(scores_ptr, tl.program_id(1), parts, rows, cols, N) * scale
    s = tl.where((cols < N)[None, :], s, -float("inf"))
    e = tl.exp(s - tl.max(s, 1)[:, None])
    weights_ptr += tl.program_id(1).to(tl.int64) * N * N
    _put(weights_ptr, e / tl.sum(e, 1)[:, None], rows, rows < N, N, cols, cols < N, 1)


@triton.jit
def softmax_gradient(
    of_weights_ptr, weights_ptr, of_scores_ptr, scale, parts, N, ROWS: tl.constexpr, WIDE: tl.constexpr
):
    """The gradient of some rows of scores. Grid (tiles of rows, B * G)."""
    rows, cols = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE)
    of_weights = _summed(of_weights_ptr, tl.program_id(1), parts, rows, cols, N)
    at = tl.program_id(1).to(tl.int64) * N * N
    weights = _tile(weights_ptr + at, rows, rows < N, N, cols, cols < N, 1)
    of_scores = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None]) * scale
    _put(of_scores_ptr + at, of_scores, rows, rows < N, N, cols, cols < N, 1)


@triton.jit
def _product(
    ptr, t, inside, stride, group, cols, of_col, matrix_ptr, from_col, to_col,
    C, N, JOINED: tl.constexpr, Q: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of a map by the group's matrix, for some columns of the result: `from_col` and `to_col` are the strides of
    the matrix along the map's channels and the result's."""
    total = tl.zeros((Q, SIDE), dtype=tl.float32)
    for start in range(0, N, SIDE):
        n = start + tl.arange(0, SIDE)
        channel = group * N + n
        if JOINED:
            channel = _place(C + channel, C)
        a = _tile(ptr, t, inside, stride, channel, n < N, of_col)
        m = _tile(matrix_ptr, n, n < N, from_col, cols, cols < N, to_col)
        total += tl.dot(a, m, input_precision=PRECISION)
    return total


@triton.jit
def join(
    x_ptr, v_ptr, weights_ptr, y_ptr,
    xb, xl, xc, vb, vl, vc,
    L, C, G, N,
    Q: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y, contiguous: the joined map of x, v W^T and v, for a tile of positions and some channels of a group. Grid
    (tiles * sides, B * G)."""
    sides = tl.cdiv(N, SIDE)
    batch, group = (tl.program_id(1) // G).to(tl.int64), tl.program_id(1) % G
    t = (tl.program_id(0) // sides * Q + tl.arange(0, Q)).to(tl.int64)
    i = tl.program_id(0) % sides * SIDE + tl.arange(0, SIDE)
    channel, inside, own = group * N + i, t < L, i < N
    v_ptr += batch * vb
    weights_ptr += tl.program_id(1).to(tl.int64) * N * N
    attended = _product(v_ptr, t, inside, vl, group, i, vc, weights_ptr, 1, N, C, N, False, Q, SIDE, PRECISION)
    x = _tile(x_ptr + batch * xb, t, inside, xl, channel, own, xc)
    v = _tile(v_ptr, t, inside, vl, channel, own, vc)
    y_ptr += batch * L * 3 * C
    _put(y_ptr, x, t, inside, 3 * C, _place(channel, C), own, 1)
    _put(y_ptr, attended, t, inside, 3 * C, _place(C + channel, C), own, 1)
    _put(y_ptr, v, t, inside, 3 * C, _place(2 * C + channel, C), own, 1)


@triton.jit
def split(
    dy_ptr, weights_ptr, dx_ptr, dv_ptr,
    gb, gl, gc,
    L, C, G, N,
    Q: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of x and v, contiguous, for a tile of positions and some channels of a group. Grid as `join`."""
    sides = tl.cdiv(N, SIDE)
    batch, group = (tl.program_id(1) // G).to(tl.int64), tl.program_id(1) % G
    t = (tl.program_id(0) // sides * Q + tl.arange(0, Q)).to(tl.int64)
    j = tl.program_id(0) % sides * SIDE + tl.arange(0, SIDE)
    channel, inside, own = group * N + j, t < L, j < N
    dy_ptr += batch * gb
    weights_ptr += tl.program_id(1).to(tl.int64) * N * N
    dv = _product(dy_ptr, t, inside, gl, group, j, gc, weights_ptr, N, 1, C, N, True, Q, SIDE, PRECISION)
    dv += _tile(dy_ptr, t, inside, gl, _place(2 * C + channel, C), own, gc)
    dx = _tile(dy_ptr, t, inside, gl, _place(channel, C), own, gc)
    _put(dx_ptr + batch * L * C, dx, t, inside, C, channel, own, 1)
    _put(dv_ptr + batch * L * C, dv, t, inside, C, channel, own, 1)


@triton.jit
def of_scores(
    q_ptr, k_ptr, of_scores_ptr, dq_ptr, dk_ptr,
    qb, ql, qc, kb, kl, kc,
    L, C, G, N,
    Q: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and keys, contiguous, for a tile of their positions and some channels of a group.
    Grid as `join`."""
    sides = tl.cdiv(N, SIDE)
    batch, group = (tl.program_id(1) // G).to(tl.int64), tl.program_id(1) % G
    t = (tl.program_id(0) // sides * Q + tl.arange(0, Q)).to(tl.int64)
    i = tl.program_id(0) % sides * SIDE + tl.arange(0, SIDE)
    channel, inside, own = group * N + i, t < L, i < N
    of_scores_ptr += tl.program_id(1).to(tl.int64) * N * N
    dq = _product(k_ptr + batch * kb, t, inside, kl, group, i, kc, of_scores_ptr, 1, N, C, N, False, Q, SIDE, PRECISION)
    _put(dq_ptr + batch * L * C, dq, t, inside, C, channel, own, 1)
    dk = _product(q_ptr + batch * qb, t, inside, ql, group, i, qc, of_scores_ptr, N, 1, C, N, False, Q, SIDE, PRECISION)
    _put(dk_ptr + batch * L * C, dk, t, inside, C, channel, own, 1)
