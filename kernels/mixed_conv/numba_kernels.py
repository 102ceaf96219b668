"""Multi-head mixed convolution as loops for numba. Imports numba.

A work item is a block of `LANES` channels of every head in a band of rows of one image. The band of each head is copied
to where zeros surround it and its channels lie side by side, convolved there, and mixed with the others' while they are
in the cache; nothing of the size of the map is stored.

Letters: X the copy of a band, S its convolved heads, D their gradients, G those of a position's outputs; Y and V hold
what does not fit where it belongs.
"""

# mypy: disable-error-code="call-arg"
# numba hands an intrinsic its first argument itself

from __future__ import annotations

import numpy as np

from blockforge.kernels.cpu.jit import ZERO, at, jit, put
from blockforge.kernels.mixed_conv.numba_vectors import (
    LANES,
    POSITIONS,
    add_mixing,
    convolve,
    correlate,
    mix,
    unmix,
)


@jit()
def forward(x, w, m, strides, size, sides, outs, rows, first, last, y):  # type: ignore[no-untyped-def]
    """y, (B, H, W, CH * outputs), for the items from `first` to `last`.

    Args:
        x, w, m, y: addresses; `strides` are those of x's batch, rows and columns. Channels lie side by side.
        size: B, H, W, CH, the channels of a head.
        sides: of the kernels.
        w: of each block of channels, (blocks, taps of all heads + heads, LANES): kernels, then biases.
        m: of each block of channels, (blocks, 1 + heads, outputs of the block): biases, and each head's weights.
        outs: a tuple as long as a group has outputs.
        rows: of a band.
    """
    x_b, x_h, x_w = strides
    _, height, width, channels = size
    heads, blocks, outputs = sides.size, (channels + LANES - 1) // LANES, len(outs)
    bands, reach = (height + rows - 1) // rows, sides.max() // 2
    wide = (width + POSITIONS - 1) // POSITIONS * POSITIONS
    a_block, row_x = ((sides * sides).sum() + heads) * LANES, (wide + 2 * reach) * LANES
    X, S = np.empty((rows + 2 * reach) * row_x, np.float32), np.empty(heads * rows * wide * LANES, np.float32)
    Y = np.empty(outputs * LANES, np.float32)
    for item in range(first, last):
        b, band, block = item // (bands * blocks), item // blocks % bands, item % blocks
        c, top = block * LANES, band * rows
        count, bottom = min(LANES, channels - c), min(height, top + rows)
        at_w = block * a_block
        _convolve_heads(X, row_x, x, b * x_b + c, x_h, x_w, size, sides, w, at_w, top, bottom, count, S, rows, wide)
        at_m = block * (1 + heads) * outputs * LANES
        for i in range(bottom - top):
            for p in range(width):
                at_s, at_y = (i * wide + p) * LANES, (((b * height + top + i) * width + p) * channels + c) * outputs
                if count == LANES:
                    mix(S, at_s, rows * wide * LANES, heads, m, at_m, y, at_y, outs)
                else:
                    mix(S, at_s, rows * wide * LANES, heads, m, at_m, Y, 0, outs)
                    for d in range(count * outputs):
                        put(y, at_y + d, at(Y, d))


@jit()
def _convolve_heads(  # type: ignore[no-untyped-def]
    X, row_x, x, at_x, x_h, x_w, size, sides, w, at_w, top, bottom, count, S, rows, wide
):
    """S <- a block of channels of every head of a band, convolved."""
    _, height, width, channels = size
    at_b = at_w + (sides * sides).sum() * LANES
    for head in range(sides.size):
        side = sides[head]
        r = side // 2
        _pack(X, row_x, r, x, at_x + head * channels, x_h, x_w, height, width, top, bottom, count)
        for i in range(bottom - top):
            for p in range(0, width, POSITIONS):
                at_s = ((head * rows + i) * wide + p) * LANES
                convolve(X, i * row_x + p * LANES, row_x, w, at_w, at_b, side, S, at_s)
        at_w += side * side * LANES
        at_b += LANES


@jit()
def _pack(X, row_x, r, x, at_x, x_h, x_w, height, width, top, bottom, count):  # type: ignore[no-untyped-def]
    """X <- a block of channels of the rows from `top` - r to `bottom` + r, with r zeros around the map."""
    for i in range(bottom - top + 2 * r):
        source, target = top - r + i, i * row_x
        if source < 0 or source >= height:
            for d in range((width + 2 * r) * LANES):
                put(X, target + d, ZERO)
            continue
        for d in range(r * LANES):
            put(X, target + d, ZERO)
            put(X, target + (r + width) * LANES + d, ZERO)
        for p in range(width):
            to, of = target + (r + p) * LANES, at_x + source * x_h + p * x_w
            if count == LANES:
                for d in range(LANES):
                    put(X, to + d, at(x, of + d))
            else:
                for d in range(count):
                    put(X, to + d, at(x, of + d))


@jit()
def backward(  # type: ignore[no-untyped-def]
    x, w, m, strides, size, sides, outs, rows, first, last, turned, dy, dx, dw, dm
):
    """Gradients for the items from `first` to `last`, see `forward`. dx is dense; dw and dm, as w and m, are added
    to, but for the convolutions' biases, whose gradients follow from those of the mixing's.

    Args:
        m: as of `forward`, but of each channel's first output, of each one's second, and so on.
        turned: w with each kernel turned half around, and biases of 0.
    """
    x_b, x_h, x_w = strides
    _, height, width, channels = size
    heads, blocks, outputs = sides.size, (channels + LANES - 1) // LANES, len(outs)
    bands, reach = (height + rows - 1) // rows, sides.max() // 2
    wide = (width + POSITIONS - 1) // POSITIONS * POSITIONS
    a_block, row_x = ((sides * sides).sum() + heads) * LANES, (wide + 2 * reach) * LANES
    apart_s, apart_d = rows * wide * LANES, (rows + 2 * reach) * row_x
    X, S = np.empty(apart_d, np.float32), np.empty(heads * apart_s, np.float32)
    D, V = np.zeros(heads * apart_d, np.float32), np.empty(POSITIONS * LANES, np.float32)
    Y, G = np.zeros(outputs * LANES, np.float32), np.empty(outputs * LANES, np.float32)
    taps = np.zeros(sides.max() ** 2 + POSITIONS, np.int64)
    for item in range(first, last):
        b, band, block = item // (bands * blocks), item // blocks % bands, item % blocks
        c, top = block * LANES, band * rows
        count, bottom = min(LANES, channels - c), min(height, top + rows)
        at_m, at_w = block * (1 + heads) * outputs * LANES, block * a_block
        at_b = at_w + a_block - heads * LANES
        _convolve_heads(X, row_x, x, b * x_b + c, x_h, x_w, size, sides, w, at_w, top, bottom, count, S, rows, wide)
        for i in range(top - reach, bottom + reach):
            for p in range(width):
                at_d = (i - top + reach) * row_x + (reach + p) * LANES
                at_y = (((b * height + i) * width + p) * channels + c) * outputs
                if i < 0 or i >= height:
                    _clear(D, at_d, apart_d, heads)
                elif count == LANES:
                    unmix(dy, at_y, m, at_m, heads, D, at_d, apart_d, G, outs)
                else:
                    for d in range(count * outputs):
                        put(Y, d, at(dy, at_y + d))
                    unmix(Y, 0, m, at_m, heads, D, at_d, apart_d, G, outs)
                if i >= top and i < bottom:
                    add_mixing(dm, at_m, G, S, ((i - top) * wide + p) * LANES, apart_s, heads, outs)
        for head in range(heads):
            side = sides[head]
            r, at_x = side // 2, b * x_b + head * channels + c
            _pack(X, row_x, r, x, at_x, x_h, x_w, height, width, top, bottom, count)
            at_d = head * apart_d + reach * (row_x + LANES)
            _add_kernel(dw, at_w, X, row_x, D, at_d, side, bottom - top, width, taps, V)
            at_d -= r * (row_x + LANES)
            for i in range(bottom - top):
                for p in range(0, width, POSITIONS):
                    convolve(D, at_d + i * row_x + p * LANES, row_x, turned, at_w, at_b, side, V, 0)
                    for j in range(min(POSITIONS, width - p)):
                        to = (((b * height + top + i) * width + p + j) * heads + head) * channels + c
                        for d in range(count):
                            put(dx, to + d, at(V, j * LANES + d))
            at_w += side * side * LANES
            at_b += LANES


@jit()
def _clear(D, at_d, apart, heads):  # type: ignore[no-untyped-def]
    """D <- 0 at one position of every head."""
    for head in range(heads):
        for d in range(LANES):
            put(D, head * apart + at_d + d, ZERO)


@jit()
def _add_kernel(dw, at_w, X, row_x, D, at_d, side, height, width, taps, V):  # type: ignore[no-untyped-def]
    """dw <- what a band adds to the gradient of one head's kernel. taps: room for where they lie in X."""
    for tap in range(side * side):
        taps[tap] = tap // side * row_x + tap % side * LANES
    for tap in range(0, side * side, POSITIONS):
        correlate(X, 0, row_x, D, at_d, height, width, taps, tap, V)
        for d in range(min(POSITIONS, side * side - tap) * LANES):
            put(dw, at_w + tap * LANES + d, at(dw, at_w + tap * LANES + d) + at(V, d))
