"""Triton kernels of multi-head mixed convolution.

Letters: H height, W width, N heads, CH channels of a head, OUT outputs of a group. A tile is ROWS x COLS positions
(P of them) by CHANNELS channels of a head by OUTS >= OUT outputs; what is beyond an edge is read as 0. All arithmetic
is in float32.

The sides of the kernels are digits of one number to the base 64, `SIDES`, the first head's the lowest. Their weights
lie tap by tap, (taps of all heads, CH), biases (N, CH), the mixing weight (CH, OUT, N), its bias (CH, OUT). Maps that
are read come with their strides; those that are written are contiguous.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _positions(tile, H, W, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Image, rows and columns of a tile's positions, and which of them are on the map."""
    across, down = tl.cdiv(W, COLS), tl.cdiv(H, ROWS)
    p = tl.arange(0, ROWS * COLS)
    row = (tile // across) % down * ROWS + p // COLS
    col = tile % across * COLS + p % COLS
    return (tile // (across * down)).to(tl.int64), row, col, (row < H) & (col < W)


@triton.jit
def _kernel_of(head, N: tl.constexpr, SIDES: tl.constexpr):
    """Side of a head's kernel, and the taps before its first."""
    side, before = 0, 0
    for i in tl.static_range(N):
        side = tl.where(head == i, (SIDES >> (6 * i)) & 63, side)
        before += tl.where(i < head, ((SIDES >> (6 * i)) & 63) * ((SIDES >> (6 * i)) & 63), 0)
    return side, before


@triton.jit
def _offsets(row, col, stride_row, stride_col, c, stride_channel):
    """Of a tile's elements in an image, (P, CHANNELS)."""
    return (row.to(tl.int64) * stride_row + col.to(tl.int64) * stride_col)[:, None] + (c * stride_channel)[None, :]


@triton.jit
def _shifted(ptr, at, row, col, down, right, stride_row, stride_col, H, W, inside_c):
    """A tile of a map so many positions further down and to the right."""
    row, col = row + down, col + right
    inside = (row >= 0) & (row < H) & (col >= 0) & (col < W)
    return tl.load(
        ptr + (down * stride_row + right * stride_col) + at, mask=inside[:, None] & inside_c[None, :], other=0.0
    ).to(tl.float32)


@triton.jit
def _convolved(
    ptr, w_ptr, row, col, stride_row, stride_col, stride_channel, H, W, c, CH, side, FLIP: tl.constexpr
):  # fmt: skip
    """A tile of a map's depth-wise convolution, without the bias. `FLIP`: by the kernel turned half around."""
    at, inside_c, reach = _offsets(row, col, stride_row, stride_col, c, stride_channel), c < CH, side // 2
    y = tl.zeros(at.shape, dtype=tl.float32)
    for tap in range(side * side):
        w = tl.load(w_ptr + (side * side - 1 - tap if FLIP else tap) * CH + c, mask=inside_c, other=0.0)
        down, right = tap // side - reach, tap % side - reach
        y += w[None, :] * _shifted(ptr, at, row, col, down, right, stride_row, stride_col, H, W, inside_c)
    return y


@triton.jit
def _mixing(mix_ptr, head, c, o, CH, OUT, N: tl.constexpr, HAS_MIX: tl.constexpr):
    """Weight of a head in each output of each group, (CHANNELS, OUTS). Without mixing a group's outputs are its
    heads."""
    inside = (c < CH)[:, None] & (o < OUT)[None, :]
    if HAS_MIX:
        return tl.load(mix_ptr + (c[:, None] * OUT + o[None, :]) * N + head, mask=inside, other=0.0)
    else:
        return tl.where(inside & (o == head)[None, :], 1.0, 0.0)


@triton.jit
def mixed(
    x_ptr, w_ptr, b_ptr, mix_ptr, mix_bias_ptr, y_ptr,
    xb, xh, xw, xc,
    H, W, CH, OUT,
    HAS_MIX: tl.constexpr, N: tl.constexpr, SIDES: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    """A tile of all heads: convolve one after the other, each added to the outputs it has a weight in.
    Grid (tiles, blocks of channels)."""
    batch, row, col, inside = _positions(tl.program_id(0), H, W, ROWS, COLS)
    c, o = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, OUTS)
    at_c, inside_c = c[:, None] * OUT + o[None, :], (c < CH)[:, None] & (o < OUT)[None, :]
    x_ptr += batch * xb
    y = tl.zeros((ROWS * COLS, CHANNELS, OUTS), dtype=tl.float32)
    if HAS_MIX:
        y += tl.load(mix_bias_ptr + at_c, mask=inside_c, other=0.0)[None, :, :]
    for i in range(N):  # not unrolled, nor are the taps: a thread would hold all of them, and spill
        side, before = _kernel_of(i, N, SIDES)
        s = _convolved(x_ptr + i * CH * xc, w_ptr + before * CH, row, col, xh, xw, xc, H, W, c, CH, side, False)
        s += tl.load(b_ptr + i * CH + c, mask=c < CH, other=0.0)[None, :]
        y += s[:, :, None] * _mixing(mix_ptr, i, c, o, CH, OUT, N, HAS_MIX)[None, :, :]
    at = ((batch * H + row) * W + col) * CH * OUT
    mask = inside[:, None, None] & inside_c[None, :, :]
    tl.store(y_ptr + at[:, None, None] + at_c[None, :, :], y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def mixing_gradients(
    dy_ptr, x_ptr, w_ptr, b_ptr, mix_ptr, ds_ptr, dmix_ptr,
    gb, gh, gw, gc, xb, xh, xw, xc,
    H, W, CH, OUT, ALL, TILES,
    HAS_MIX: tl.constexpr, N: tl.constexpr, SIDES: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    """Of one head: the gradient of its convolved map, into ds, (B, H, W, N, CH), and that of its mixing weight,
    (parts, CH, OUT, N), each part the sum over `TILES` of `ALL` tiles. The convolution is computed once more.
    Grid (parts, blocks of channels, N)."""
    part, head = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c, o = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, OUTS)
    at_c, inside_c = c[:, None] * OUT + o[None, :], (c < CH)[:, None] & (o < OUT)[None, :]
    side, before = _kernel_of(head, N, SIDES)
    weight = _mixing(mix_ptr, head, c, o, CH, OUT, N, HAS_MIX)
    bias = tl.load(b_ptr + head * CH + c, mask=c < CH, other=0.0)
    dmix = tl.zeros((CHANNELS, OUTS), dtype=tl.float32)
    first = tl.program_id(0) * TILES
    for i in range(tl.minimum(TILES, ALL - first)):
        batch, row, col, inside = _positions(first + i, H, W, ROWS, COLS)
        at = batch * gb + row.to(tl.int64) * gh + col.to(tl.int64) * gw
        mask = inside[:, None, None] & inside_c[None, :, :]
        dy = tl.load(dy_ptr + at[:, None, None] + (at_c * gc)[None, :, :], mask=mask, other=0.0).to(tl.float32)
        at = (((batch * H + row) * W + col) * N + head) * CH
        ds = tl.sum(dy * weight[None, :, :], 2)
        tl.store(ds_ptr + at[:, None] + c[None, :], ds, mask=inside[:, None] & (c < CH)[None, :])
        if HAS_MIX:
            x_head = x_ptr + batch * xb + head * CH * xc
            s = _convolved(x_head, w_ptr + before * CH, row, col, xh, xw, xc, H, W, c, CH, side, False) + bias[None, :]
            dmix += tl.sum(dy * s[:, :, None], 0)
    if HAS_MIX:
        tl.store(dmix_ptr + (part * CH * OUT + at_c) * N + head, dmix, mask=inside_c)


@triton.jit
def input_gradient(
    ds_ptr, w_ptr, dx_ptr,
    H, W, CH,
    N: tl.constexpr, SIDES: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of one head of dx, from the gradient of its convolved map. Grid (tiles, blocks of channels, N)."""
    batch, row, col, inside = _positions(tl.program_id(0), H, W, ROWS, COLS)
    c, head = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.program_id(2)
    side, before = _kernel_of(head, N, SIDES)
    start, wide = batch * H * W * N * CH + head * CH, N * CH
    dx = _convolved(ds_ptr + start, w_ptr + before * CH, row, col, W * wide, wide, 1, H, W, c, CH, side, True)
    at = dx_ptr + start + _offsets(row, col, W * wide, wide, c, 1)
    tl.store(at, dx.to(dx_ptr.dtype.element_ty), mask=inside[:, None] & (c < CH)[None, :])


@triton.jit
def kernel_gradients(
    ds_ptr, x_ptr, dw_ptr,
    xb, xh, xw, xc,
    H, W, CH, TAPS, ALL, TILES,
    N: tl.constexpr, SIDES: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of one head: the gradients of its kernel, (parts, TAPS, CH), each the sum over `TILES` of `ALL` tiles; tap by
    tap, so that a sum stays where it is until its last tile. Grid (parts, blocks of channels, N)."""
    c, head = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.program_id(2)
    side, before = _kernel_of(head, N, SIDES)
    wide, inside_c = N * CH, c < CH
    first = tl.program_id(0) * TILES
    dw_ptr += (tl.program_id(0).to(tl.int64) * TAPS + before) * CH
    for tap in range(side * side):
        down, right = tap // side - side // 2, tap % side - side // 2
        dw = tl.zeros((ROWS * COLS, CHANNELS), dtype=tl.float32)
        for i in range(tl.minimum(TILES, ALL - first)):
            batch, row, col, inside = _positions(first + i, H, W, ROWS, COLS)
            at = batch * H * W * wide + head * CH + _offsets(row, col, W * wide, wide, c, 1)
            ds = tl.load(ds_ptr + at, mask=inside[:, None] & inside_c[None, :], other=0.0)
            at = _offsets(row, col, xh, xw, c, xc)
            x = _shifted(x_ptr + batch * xb + head * CH * xc, at, row, col, down, right, xh, xw, H, W, inside_c)
            dw += ds * x
        tl.store(dw_ptr + tap * CH + c, tl.sum(dw, 0), mask=inside_c)
