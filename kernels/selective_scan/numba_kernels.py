"""The selective scan as loops for numba. Imports numba.

A work item is one sequence and a run of adjacent tiles; a tile is up to `WIDTH` adjacent channels of one group.
Threads share the items. Inside, positions run one after another, the tiles of a position one after another, and
the channels of a tile side by side, in vector code. Nothing of the size of (length, states, channels) is
stored: the backward pass keeps the states at the start of every chunk, about the root of the length many, and
runs chunk by chunk again.

Tensors come as flat arrays with strides, and positions in the order in which they are visited, so that lines,
columns, windows and both directions of a map are one loop. Rows of scratch buffers are WIDTH apart.

`strides` holds, one after another, those of u (batch, position), delta (batch, position), B (batch, group,
state, position), C likewise and the output or its gradient (batch, position); channels lie side by side.
They are unpacked first: a stride that is read inside a loop which writes could change, for all LLVM knows.
"""

# mypy: disable-error-code="call-arg, var-annotated"
# numba hands an intrinsic its first argument itself

from __future__ import annotations

import numpy as np

from blockforge.kernels.jit import ONE, ZERO, at, exp, jit, put, sigmoid, softplus

WIDTH = 192
"""Most channels of a tile: wide enough for long vector loops, narrow enough for the fastest cache."""

_FLOAT = np.float32


@jit(inline=True)
def _load(P, o, u, at_u, delta, at_delta, S, o_s, width, has_softplus, slope):  # type: ignore[no-untyped-def]
    """Rows of P from o on: step, step * u, u, and with `slope` the derivative of the step. S: the bias."""
    for d in range(width):
        put(P, o + d, at(delta, at_delta + d) + at(S, o_s + d))
    for d in range(width):
        put(P, o + 2 * WIDTH + d, at(u, at_u + d))
    if has_softplus:
        for d in range(width):
            x = at(P, o + d)
            e = exp(-abs(x))
            put(P, o + d, softplus(x, e))
            if slope:
                put(P, o + 3 * WIDTH + d, sigmoid(x, e))
    elif slope:
        for d in range(width):
            put(P, o + 3 * WIDTH + d, ONE)
    for d in range(width):
        put(P, o + WIDTH + d, at(P, o + d) * at(P, o + 2 * WIDTH + d))


@jit(inline=True)
def _store(y, at_y, P, o, width, add):  # type: ignore[no-untyped-def]
    """y <- (or with `add`: + ) a row of P."""
    if add:
        for d in range(width):
            put(y, at_y + d, at(y, at_y + d) + at(P, o + d))
    else:
        for d in range(width):
            put(y, at_y + d, at(P, o + d))


@jit()
def forward(  # type: ignore[no-untyped-def]
    u, delta, B, C, A, D, bias, order, strides, items, tiles, first, last, has_softplus, add, y
):
    """y[b, p, c] = the scan's output (with `add`: is added) for the items from `first` to `last`.

    Args:
        items: rows of (sequence, first tile, tiles).
        tiles: rows of (group, first channel, channels).
    """
    states = A.shape[0]
    size = (2 + 2 * states) * WIDTH
    P = np.zeros(4 * WIDTH, _FLOAT)  # step, step * u, u, output
    S = np.zeros(items[:, 2].max() * size, _FLOAT)  # of each tile: bias, D; then of each state: h, A
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p, C_b, C_g, C_s, C_p, y_b, y_p = strides
    for item in range(first, last):
        b, first_tile, count = items[item]
        for k in range(count):
            g, c, width = tiles[first_tile + k]
            for d in range(width):
                S[k * size + d], S[k * size + WIDTH + d] = bias[c + d], D[c + d]
                for n in range(states):
                    S[k * size + (2 + 2 * n) * WIDTH + d] = ZERO
                    S[k * size + (3 + 2 * n) * WIDTH + d] = A[n, c + d]
        for i in range(order.size):
            p = order[i]
            at_u, at_delta, at_y = b * u_b + p * u_p, b * delta_b + p * delta_p, b * y_b + p * y_p
            for k in range(count):
                g, c, width = tiles[first_tile + k]
                at_B, at_C = b * B_b + g * B_g + p * B_p, b * C_b + g * C_g + p * C_p
                o = k * size
                _load(P, 0, u, at_u + c, delta, at_delta + c, S, o, width, has_softplus, False)
                for d in range(width):
                    put(P, 3 * WIDTH + d, at(S, o + WIDTH + d) * at(P, 2 * WIDTH + d))
                for n in range(states):
                    B_n, C_n = at(B, at_B + n * B_s), at(C, at_C + n * C_s)
                    o += 2 * WIDTH
                    for d in range(width):
                        h = exp(at(P, d) * at(S, o + WIDTH + d)) * at(S, o + d) + at(P, WIDTH + d) * B_n
                        put(S, o + d, h)
                        put(P, 3 * WIDTH + d, at(P, 3 * WIDTH + d) + C_n * h)
                _store(y, at_y + c, P, 3 * WIDTH, width, add)


@jit()
def backward(  # type: ignore[no-untyped-def]
    u, delta, B, C, A, D, bias, order, strides, items, tiles, first, last, has_softplus, add,
    dy, du, ddelta, dB, dC, dA, dD, dbias, chunk,
):  # fmt: skip
    """Gradients for the items from `first` to `last`, see `forward`.

    du (with `add`: is added to) and ddelta are flat (batch, positions, channels), dense; dB and dC (batch, groups,
    positions, states), dA (states, channels), dD and dbias (channels) are dense and added to.
    """
    states, channels, length, most = A.shape[0], A.shape[1], order.size, items[:, 2].max()
    chunks, size = (length + chunk - 1) // chunk, (4 + 3 * states) * WIDTH
    # Of each position and tile: step, step * u, u, the step's derivative.
    P = np.zeros(chunk * most * 4 * WIDTH, _FLOAT)
    # Before the chunk and at each position, of each tile and state: h, decay.
    H = np.zeros((chunk + 1) * most * states * 2 * WIDTH, _FLOAT)
    # Of each tile: bias, D, dbias, dD; of each of its states: A, what later positions pass back to h, dA.
    S = np.zeros(most * size, _FLOAT)
    V = np.zeros(4 * WIDTH, _FLOAT)  # dy, d(step * u), d(step), du
    E = np.zeros((chunks, most, states, WIDTH), _FLOAT)
    for item in range(first, last):
        b, first_tile, count = items[item]
        own = tiles[first_tile : first_tile + count]
        _fill(S, own, size, A, D, bias)
        _enter_chunks(E, P, S, u, delta, B, b, own, order, strides, has_softplus, chunk)
        for k in range(chunks - 1, -1, -1):
            start, stop = k * chunk, min(length, (k + 1) * chunk)
            _advance(E[k], P, H, S, u, delta, B, b, own, order[start:stop], strides, has_softplus)
            _return(P, H, S, V, B, C, b, own, order[start:stop], strides, length, channels, add, dy, du, ddelta, dB, dC)
        for k in range(count):
            _, c, width = own[k]
            o = k * size
            for d in range(width):
                dbias[c + d] += S[o + 2 * WIDTH + d]
                dD[c + d] += S[o + 3 * WIDTH + d]
                for n in range(states):
                    dA[n, c + d] += S[o + (6 + 3 * n) * WIDTH + d]


@jit()
def _fill(S, tiles, size, A, D, bias):  # type: ignore[no-untyped-def]
    """The parameters of an item's tiles; zeros for what is summed up."""
    S[:] = ZERO
    for k in range(len(tiles)):
        _, c, width = tiles[k]
        for d in range(width):
            S[k * size + d], S[k * size + WIDTH + d] = bias[c + d], D[c + d]
            for n in range(A.shape[0]):
                S[k * size + (4 + 3 * n) * WIDTH + d] = A[n, c + d]


@jit()
def _enter_chunks(E, P, S, u, delta, B, b, tiles, order, strides, has_softplus, chunk):  # type: ignore[no-untyped-def]
    """E[k] <- the states that enter chunk k, (tiles, states, channels). Uses the states' second row of S, which
    is zero before and after."""
    states = E.shape[2]
    size = (4 + 3 * states) * WIDTH
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p = strides[:8]
    for i in range((E.shape[0] - 1) * chunk + 1):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            if i % chunk == 0:
                for n in range(states):
                    for d in range(width):
                        E[i // chunk, k, n, d] = S[k * size + (5 + 3 * n) * WIDTH + d]
            o = k * size
            _load(
                P, 0, u, b * u_b + p * u_p + c, delta, b * delta_b + p * delta_p + c, S, o, width, has_softplus, False
            )
            at_B = b * B_b + g * B_g + p * B_p
            o += WIDTH
            for n in range(states):
                o += 3 * WIDTH
                B_n = at(B, at_B + n * B_s)
                for d in range(width):
                    h = exp(at(P, d) * at(S, o + d)) * at(S, o + WIDTH + d) + at(P, WIDTH + d) * B_n
                    put(S, o + WIDTH + d, h)
    for k in range(len(tiles)):
        for n in range(states):
            o = k * size + (5 + 3 * n) * WIDTH
            S[o : o + WIDTH] = ZERO


@jit()
def _advance(E, P, H, S, u, delta, B, b, tiles, order, strides, has_softplus):  # type: ignore[no-untyped-def]
    """P and H of one chunk, from the states E that enter it."""
    states = E.shape[1]
    size, back = (4 + 3 * states) * WIDTH, len(tiles) * states * 2 * WIDTH
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p = strides[:8]
    for k in range(len(tiles)):
        for n in range(states):
            for d in range(tiles[k, 2]):
                H[(k * states + n) * 2 * WIDTH + d] = E[k, n, d]
    for i in range(order.size):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            o, o_s = (i * len(tiles) + k) * 4 * WIDTH, k * size
            at_u, at_delta = b * u_b + p * u_p + c, b * delta_b + p * delta_p + c
            _load(P, o, u, at_u, delta, at_delta, S, o_s, width, has_softplus, True)
            at_B = b * B_b + g * B_g + p * B_p
            o_s += 4 * WIDTH
            o_h = back * (i + 1) + k * states * 2 * WIDTH
            for n in range(states):
                B_n = at(B, at_B + n * B_s)
                for d in range(width):
                    put(H, o_h + WIDTH + d, exp(at(P, o + d) * at(S, o_s + d)))
                for d in range(width):
                    put(H, o_h + d, at(H, o_h + WIDTH + d) * at(H, o_h - back + d) + at(P, o + WIDTH + d) * B_n)
                o_s += 3 * WIDTH
                o_h += 2 * WIDTH


@jit()
def _return(  # type: ignore[no-untyped-def]
    P, H, S, V, B, C, b, tiles, order, strides, length, channels, add, dy, du, ddelta, dB, dC
):
    """One chunk, from its last position to the first: the gradients of u, delta, B and C; sums in S."""
    states = dB.shape[3]
    size, back = (4 + 3 * states) * WIDTH, len(tiles) * states * 2 * WIDTH
    B_b, B_g, B_s, B_p, C_b, C_g, C_s, C_p, y_b, y_p = strides[4:]
    for i in range(order.size - 1, -1, -1):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            o, o_s = (i * len(tiles) + k) * 4 * WIDTH, k * size
            at_dy, row = b * y_b + p * y_p + c, (b * length + p) * channels + c
            for d in range(width):
                put(V, d, at(dy, at_dy + d))
            for d in range(width):
                put(V, WIDTH + d, ZERO)
                put(V, 2 * WIDTH + d, ZERO)
            for n in range(states):
                B_n, C_n = at(B, b * B_b + g * B_g + p * B_p + n * B_s), at(C, b * C_b + g * C_g + p * C_p + n * C_s)
                o_h = back * (i + 1) + (k * states + n) * 2 * WIDTH
                of_B, of_C = _return_state(P, o, H, o_h, back, S, o_s + (4 + 3 * n) * WIDTH, V, B_n, C_n, width)
                dB[b, g, p, n] += of_B
                dC[b, g, p, n] += of_C
            for d in range(width):
                put(V, 3 * WIDTH + d, at(V, WIDTH + d) * at(P, o + d) + at(V, d) * at(S, o_s + WIDTH + d))
                step = at(V, 2 * WIDTH + d) + at(V, WIDTH + d) * at(P, o + 2 * WIDTH + d)
                put(V, 2 * WIDTH + d, step * at(P, o + 3 * WIDTH + d))
                put(S, o_s + 2 * WIDTH + d, at(S, o_s + 2 * WIDTH + d) + at(V, 2 * WIDTH + d))
                put(S, o_s + 3 * WIDTH + d, at(S, o_s + 3 * WIDTH + d) + at(V, d) * at(P, o + 2 * WIDTH + d))
            _store(ddelta, row, V, 2 * WIDTH, width, False)
            _store(du, row, V, 3 * WIDTH, width, add)


@jit("reassoc", inline=True)
def _return_state(P, o, H, o_h, back, S, o_s, V, B_n, C_n, width):  # type: ignore[no-untyped-def]
    """One state of one position; gives the parts of dB and dC."""
    of_B, of_C = ZERO, ZERO
    for d in range(width):
        dy = at(V, d)
        dh = at(S, o_s + WIDTH + d) + C_n * dy
        of_C += dy * at(H, o_h + d)
        of_B += dh * at(P, o + WIDTH + d)
        passed = dh * at(H, o_h + WIDTH + d)
        put(V, WIDTH + d, at(V, WIDTH + d) + dh * B_n)
        put(S, o_s + WIDTH + d, passed)
        power = passed * at(H, o_h - back + d)
        put(V, 2 * WIDTH + d, at(V, 2 * WIDTH + d) + power * at(S, o_s + d))
        put(S, o_s + 2 * WIDTH + d, at(S, o_s + 2 * WIDTH + d) + power * at(P, o + d))
    return of_B, of_C
