"""The derivative of the selective scan as loops for numba, see `numba_kernels`. Imports numba.

The states at the start of every chunk are kept, about the root of the length many; then chunk by chunk, from the
last to the first, its states are computed again and the gradients with them.
"""

# mypy: disable-error-code="call-arg, var-annotated"
# numba hands an intrinsic its first argument itself

from __future__ import annotations

from blockforge.kernels.cpu.jit import LN_2, LOG2_E, ONE, ZERO, at, exp, exp2, jit, put, scratch, sigmoid, softplus
from blockforge.kernels.selective_scan.numba_kernels import WIDTH, state, store


@jit()
def backward(  # type: ignore[no-untyped-def]
    u, delta, B, C, A, D, bias, order, strides, channels, states, items, tiles, first, last, has_softplus, add,
    dy, du, ddelta, dB, dC, dA, dD, dbias, chunk,
):  # fmt: skip
    """Gradients for the items from `first` to `last`, see `numba_kernels.forward`.

    du (with `add`: is added to) and ddelta are dense (batch, positions, channels); dB and dC are arrays (batch, groups,
    positions, states), dA (states, channels), dD and dbias (channels), which are added to.
    """
    length, most = order.size, items[:, 2].max()
    chunks, size = (length + chunk - 1) // chunk, (4 + 4 * states) * WIDTH
    # Of each position and tile: step, step * u, u, the step's derivative.
    P = scratch(chunk * most * 4 * WIDTH)
    # At each position, of each tile and state: decay, decay * h of the position before.
    H = scratch(chunk * most * states * 2 * WIDTH)
    # Of each tile: bias, D, dbias, dD; of each of its states: h, A log2(e), what later positions pass back to h, dA.
    S = scratch(most * size)
    V = scratch(4 * WIDTH)  # dy, d(step * u), d(step) / ln(2), du
    E = scratch(chunks * most * states * WIDTH).reshape(chunks, most, states, WIDTH)
    for item in range(first, last):
        b, first_tile, count = items[item]
        own = tiles[first_tile : first_tile + count]
        _fill(S, own, size, A, D, bias, states, strides)
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
                    dA[n, c + d] += S[o + (7 + 4 * n) * WIDTH + d]


@jit()
def _fill(S, tiles, size, A, D, bias, states, strides):  # type: ignore[no-untyped-def]
    """The parameters of an item's tiles; zeros for what is summed up."""
    A_d, A_n = strides[14:]
    S[:] = ZERO
    for k in range(len(tiles)):
        _, c, width = tiles[k]
        for d in range(width):
            S[k * size + d], S[k * size + WIDTH + d] = at(bias, c + d), at(D, c + d)
            for n in range(states):
                S[k * size + (5 + 4 * n) * WIDTH + d] = at(A, (c + d) * A_d + n * A_n) * LOG2_E


@jit()
def _enter_chunks(E, P, S, u, delta, B, b, tiles, order, strides, has_softplus, chunk):  # type: ignore[no-untyped-def]
    """E[k] <- the states that enter chunk k, (tiles, states, channels). Those of S begin with zeros."""
    states = E.shape[2]
    size = (4 + 4 * states) * WIDTH
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p = strides[:8]
    for i in range((E.shape[0] - 1) * chunk + 1):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            o, at_u, at_delta = k * size, b * u_b + p * u_p + c, b * delta_b + p * delta_p + c
            if i % chunk == 0:
                for n in range(states):
                    for d in range(width):
                        E[i // chunk, k, n, d] = S[o + (4 + 4 * n) * WIDTH + d]
            for d in range(width):
                x, value = at(delta, at_delta + d) + at(S, o + d), at(u, at_u + d)
                step = softplus(x, exp(-abs(x))) if has_softplus else x
                put(P, d, step)
                put(P, WIDTH + d, step * value)
            at_B = b * B_b + g * B_g + p * B_p
            o += 4 * WIDTH
            for _ in range(states // 4):
                B_0, B_1, B_2, B_3 = at(B, at_B), at(B, at_B + B_s), at(B, at_B + 2 * B_s), at(B, at_B + 3 * B_s)
                for d in range(width):
                    step, product = at(P, d), at(P, WIDTH + d)
                    state(S, o, d, step, product, B_0)
                    state(S, o + 4 * WIDTH, d, step, product, B_1)
                    state(S, o + 8 * WIDTH, d, step, product, B_2)
                    state(S, o + 12 * WIDTH, d, step, product, B_3)
                o, at_B = o + 16 * WIDTH, at_B + 4 * B_s
            for _ in range(states % 4):
                B_n = at(B, at_B)
                for d in range(width):
                    state(S, o, d, at(P, d), at(P, WIDTH + d), B_n)
                o, at_B = o + 4 * WIDTH, at_B + B_s


@jit()
def _advance(E, P, H, S, u, delta, B, b, tiles, order, strides, has_softplus):  # type: ignore[no-untyped-def]
    """P and H of one chunk, from the states E that enter it."""
    states = E.shape[1]
    size = (4 + 4 * states) * WIDTH
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p = strides[:8]
    for k in range(len(tiles)):
        for n in range(states):
            for d in range(tiles[k, 2]):
                S[k * size + (4 + 4 * n) * WIDTH + d] = E[k, n, d]
    for i in range(order.size):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            row = i * len(tiles) + k
            o, o_h, o_s = row * 4 * WIDTH, row * states * 2 * WIDTH, k * size
            at_u, at_delta = b * u_b + p * u_p + c, b * delta_b + p * delta_p + c
            for d in range(width):
                put(P, o + d, at(delta, at_delta + d) + at(S, o_s + d))
                put(P, o + 2 * WIDTH + d, at(u, at_u + d))
            for d in range(width):
                x = at(P, o + d)
                e = exp(-abs(x))
                put(P, o + d, softplus(x, e) if has_softplus else x)
                put(P, o + 3 * WIDTH + d, sigmoid(x, e) if has_softplus else ONE)
            for d in range(width):
                put(P, o + WIDTH + d, at(P, o + d) * at(P, o + 2 * WIDTH + d))
            at_B = b * B_b + g * B_g + p * B_p
            o_s += 4 * WIDTH
            for _ in range(states // 4):
                B_0, B_1, B_2, B_3 = at(B, at_B), at(B, at_B + B_s), at(B, at_B + 2 * B_s), at(B, at_B + 3 * B_s)
                for d in range(width):
                    step, product = at(P, o + d), at(P, o + WIDTH + d)
                    _advance_state(H, o_h, S, o_s, d, step, product, B_0)
                    _advance_state(H, o_h + 2 * WIDTH, S, o_s + 4 * WIDTH, d, step, product, B_1)
                    _advance_state(H, o_h + 4 * WIDTH, S, o_s + 8 * WIDTH, d, step, product, B_2)
                    _advance_state(H, o_h + 6 * WIDTH, S, o_s + 12 * WIDTH, d, step, product, B_3)
                o_s, o_h, at_B = o_s + 16 * WIDTH, o_h + 8 * WIDTH, at_B + 4 * B_s
            for _ in range(states % 4):
                B_n = at(B, at_B)
                for d in range(width):
                    _advance_state(H, o_h, S, o_s, d, at(P, o + d), at(P, o + WIDTH + d), B_n)
                o_s, o_h, at_B = o_s + 4 * WIDTH, o_h + 2 * WIDTH, at_B + B_s


@jit(inline=True)
def _advance_state(H, o_h, S, o_s, d, step, product, B_n):  # type: ignore[no-untyped-def]
    """`state`, which keeps what the way back needs."""
    decay = exp2(step * at(S, o_s + WIDTH + d))
    kept = decay * at(S, o_s + d)
    put(H, o_h + d, decay)
    put(H, o_h + WIDTH + d, kept)
    put(S, o_s + d, kept + product * B_n)


@jit()
def _return(  # type: ignore[no-untyped-def]
    P, H, S, V, B, C, b, tiles, order, strides, length, channels, add, dy, du, ddelta, dB, dC
):
    """One chunk, from its last position to the first: the gradients of u, delta, B and C; sums in S."""
    states = dB.shape[3]
    size = (4 + 4 * states) * WIDTH
    B_b, B_g, B_s, B_p, C_b, C_g, C_s, C_p, y_b, y_p = strides[4:14]
    for i in range(order.size - 1, -1, -1):
        p = order[i]
        for k in range(len(tiles)):
            g, c, width = tiles[k]
            row = i * len(tiles) + k
            o, o_h, o_s = row * 4 * WIDTH, row * states * 2 * WIDTH, k * size
            at_dy, to = b * y_b + p * y_p + c, (b * length + p) * channels + c
            for d in range(width):
                put(V, d, at(dy, at_dy + d))
            for d in range(width):
                put(V, WIDTH + d, ZERO)
                put(V, 2 * WIDTH + d, ZERO)
            at_B, at_C = b * B_b + g * B_g + p * B_p, b * C_b + g * C_g + p * C_p
            for n in range(0, states - 1, 2):
                B_0, B_1 = at(B, at_B + n * B_s), at(B, at_B + (n + 1) * B_s)
                C_0, C_1 = at(C, at_C + n * C_s), at(C, at_C + (n + 1) * C_s)
                o_n = o_s + (4 + 4 * n) * WIDTH
                of_B_0, of_B_1, of_C_0, of_C_1 = _return_two(
                    P, o, H, o_h + 2 * n * WIDTH, S, o_n, V, B_0, B_1, C_0, C_1, width
                )
                dB[b, g, p, n] += of_B_0
                dB[b, g, p, n + 1] += of_B_1
                dC[b, g, p, n] += of_C_0
                dC[b, g, p, n + 1] += of_C_1
            if states % 2:
                n = states - 1
                B_n, C_n = at(B, at_B + n * B_s), at(C, at_C + n * C_s)
                of_B, of_C = _return_one(P, o, H, o_h + 2 * n * WIDTH, S, o_s + (4 + 4 * n) * WIDTH, V, B_n, C_n, width)
                dB[b, g, p, n] += of_B
                dC[b, g, p, n] += of_C
            for d in range(width):
                of_y, of_product, value = at(V, d), at(V, WIDTH + d), at(P, o + 2 * WIDTH + d)
                of_step = at(V, 2 * WIDTH + d) * LN_2 + of_product * value
                of_delta = of_step * at(P, o + 3 * WIDTH + d)
                put(V, 2 * WIDTH + d, of_delta)
                put(V, 3 * WIDTH + d, of_product * at(P, o + d) + of_y * at(S, o_s + WIDTH + d))
                put(S, o_s + 2 * WIDTH + d, at(S, o_s + 2 * WIDTH + d) + of_delta)
                put(S, o_s + 3 * WIDTH + d, at(S, o_s + 3 * WIDTH + d) + of_y * value)
            store(ddelta, to, V, 2 * WIDTH, width, False)
            store(du, to, V, 3 * WIDTH, width, add)


@jit("reassoc", inline=True)
def _return_two(P, o, H, o_h, S, o_s, V, B_0, B_1, C_0, C_1, width):  # type: ignore[no-untyped-def]
    """Two states of one position; gives the parts of their dB and dC."""
    of_B_0, of_B_1, of_C_0, of_C_1 = ZERO, ZERO, ZERO, ZERO
    for d in range(width):
        of_y, step, product = at(V, d), at(P, o + d), at(P, o + WIDTH + d)
        dh_0, h_0, of_step_0 = _return_state(H, o_h, S, o_s, d, of_y, step, product, B_0, C_0)
        dh_1, h_1, of_step_1 = _return_state(H, o_h + 2 * WIDTH, S, o_s + 4 * WIDTH, d, of_y, step, product, B_1, C_1)
        of_B_0 += dh_0 * product
        of_B_1 += dh_1 * product
        of_C_0 += h_0 * of_y
        of_C_1 += h_1 * of_y
        put(V, WIDTH + d, at(V, WIDTH + d) + dh_0 * B_0 + dh_1 * B_1)
        put(V, 2 * WIDTH + d, at(V, 2 * WIDTH + d) + of_step_0 + of_step_1)
    return of_B_0, of_B_1, of_C_0, of_C_1


@jit("reassoc", inline=True)
def _return_one(P, o, H, o_h, S, o_s, V, B_n, C_n, width):  # type: ignore[no-untyped-def]
    """The same of one state."""
    of_B, of_C = ZERO, ZERO
    for d in range(width):
        of_y, step, product = at(V, d), at(P, o + d), at(P, o + WIDTH + d)
        dh, h, of_step = _return_state(H, o_h, S, o_s, d, of_y, step, product, B_n, C_n)
        of_B += dh * product
        of_C += h * of_y
        put(V, WIDTH + d, at(V, WIDTH + d) + dh * B_n)
        put(V, 2 * WIDTH + d, at(V, 2 * WIDTH + d) + of_step)
    return of_B, of_C


@jit(inline=True)
def _return_state(H, o_h, S, o_s, d, of_y, step, product, B_n, C_n):  # type: ignore[no-untyped-def]
    """dh, h and the state's part of d(step) / ln(2) of one channel."""
    kept = at(H, o_h + WIDTH + d)
    dh = at(S, o_s + 2 * WIDTH + d) + of_y * C_n
    power = dh * kept
    put(S, o_s + 2 * WIDTH + d, dh * at(H, o_h + d))
    put(S, o_s + 3 * WIDTH + d, at(S, o_s + 3 * WIDTH + d) + power * step)
    return dh, kept + product * B_n, power * at(S, o_s + WIDTH + d)
