"""The selective scan as loops for numba: forward, and what the way back shares. Imports numba.

A work item is one sequence and a run of adjacent tiles; a tile is up to `WIDTH` adjacent channels of one group.
Threads share the items. Inside, positions run one after another, the tiles of a position one after another, and
the channels of a tile side by side, in vector code, four states at a time. Nothing of the size of (length, states,
channels) is stored.

Tensors come as addresses of float32 numbers with strides, and positions in the order in which they are visited, so
that lines, columns, windows and both directions of a map are one loop. Rows of scratch buffers are WIDTH apart.

`strides` holds, one after another, those of u (batch, position), delta (batch, position), B (batch, group,
state, position), C likewise, the output or its gradient (batch, position), and A (channel, state); channels lie
side by side in u, delta, the output and its gradient. They are unpacked first: a stride that is read inside a
loop which writes could change, for all LLVM knows.

LLVM gives up on vector code without a word where a loop touches too many buffers, or two parts of one buffer whose
distance it does not know: loops are split along that line, and the bench shows where one is not.
"""

# mypy: disable-error-code="call-arg, var-annotated"
# numba hands an intrinsic its first argument itself

from __future__ import annotations

from blockforge.kernels.cpu.jit import LOG2_E, ZERO, at, exp, exp2, jit, put, scratch, softplus

WIDTH = 192
"""Most channels of a tile: wide enough for long vector loops, narrow enough for the fastest cache."""


@jit(inline=True)
def state(S, o, d, step, product, B_n):  # type: ignore[no-untyped-def]
    """h <- exp(step A) h + step u B of one channel. From o on, S has rows h and A log2(e)."""
    h = exp2(step * at(S, o + WIDTH + d)) * at(S, o + d) + product * B_n
    put(S, o + d, h)
    return h


@jit(inline=True)
def store(y, at_y, P, o, width, add):  # type: ignore[no-untyped-def]
    """y <- (or with `add`: + ) a row of P."""
    if add:
        for d in range(width):
            put(y, at_y + d, at(y, at_y + d) + at(P, o + d))
    else:
        for d in range(width):
            put(y, at_y + d, at(P, o + d))


@jit(inline=True)
def _four_states(P, S, o, B, at_B, B_s, C, at_C, C_s, width):  # type: ignore[no-untyped-def]
    """The next h of four states, whose rows lie two apart, and what they add to the output."""
    B_0, B_1, B_2, B_3 = at(B, at_B), at(B, at_B + B_s), at(B, at_B + 2 * B_s), at(B, at_B + 3 * B_s)
    C_0, C_1, C_2, C_3 = at(C, at_C), at(C, at_C + C_s), at(C, at_C + 2 * C_s), at(C, at_C + 3 * C_s)
    for d in range(width):
        step, product = at(P, d), at(P, WIDTH + d)
        y = at(P, 2 * WIDTH + d)
        y += C_0 * state(S, o, d, step, product, B_0)
        y += C_1 * state(S, o + 2 * WIDTH, d, step, product, B_1)
        y += C_2 * state(S, o + 4 * WIDTH, d, step, product, B_2)
        y += C_3 * state(S, o + 6 * WIDTH, d, step, product, B_3)
        put(P, 2 * WIDTH + d, y)


@jit()
def forward(  # type: ignore[no-untyped-def]
    u, delta, B, C, A, D, bias, order, strides, channels, states, items, tiles, first, last, has_softplus, add, y
):
    """y[b, p, c] = the scan's output (with `add`: is added) for the items from `first` to `last`.

    Args:
        D, bias: (channels), dense.
        items: rows of (sequence, first tile, tiles).
        tiles: rows of (group, first channel, channels).
    """
    size = (2 + 2 * states) * WIDTH
    P = scratch(3 * WIDTH)  # step, step * u, output
    S = scratch(items[:, 2].max() * size)  # of each tile: bias, D; then of each state: h, A log2(e)
    u_b, u_p, delta_b, delta_p, B_b, B_g, B_s, B_p, C_b, C_g, C_s, C_p, y_b, y_p, A_d, A_n = strides
    for item in range(first, last):
        b, first_tile, count = items[item]
        for k in range(count):
            g, c, width = tiles[first_tile + k]
            for d in range(width):
                S[k * size + d], S[k * size + WIDTH + d] = at(bias, c + d), at(D, c + d)
                for n in range(states):
                    S[k * size + (2 + 2 * n) * WIDTH + d] = ZERO
                    S[k * size + (3 + 2 * n) * WIDTH + d] = at(A, (c + d) * A_d + n * A_n) * LOG2_E
        for i in range(order.size):
            p = order[i]
            for k in range(count):
                g, c, width = tiles[first_tile + k]
                at_u, at_delta, at_y = b * u_b + p * u_p + c, b * delta_b + p * delta_p + c, b * y_b + p * y_p + c
                at_B, at_C = b * B_b + g * B_g + p * B_p, b * C_b + g * C_g + p * C_p
                o = k * size
                for d in range(width):
                    x, value = at(delta, at_delta + d) + at(S, o + d), at(u, at_u + d)
                    step = softplus(x, exp(-abs(x))) if has_softplus else x
                    put(P, d, step)
                    put(P, WIDTH + d, step * value)
                    put(P, 2 * WIDTH + d, at(S, o + WIDTH + d) * value)
                o += 2 * WIDTH
                for _ in range(states // 4):
                    _four_states(P, S, o, B, at_B, B_s, C, at_C, C_s, width)
                    o, at_B, at_C = o + 8 * WIDTH, at_B + 4 * B_s, at_C + 4 * C_s
                for _ in range(states % 4):
                    B_n, C_n = at(B, at_B), at(C, at_C)
                    for d in range(width):
                        h = state(S, o, d, at(P, d), at(P, WIDTH + d), B_n)
                        put(P, 2 * WIDTH + d, at(P, 2 * WIDTH + d) + C_n * h)
                    o, at_B, at_C = o + 2 * WIDTH, at_B + B_s, at_C + C_s
                store(y, at_y, P, 2 * WIDTH, width, add)
