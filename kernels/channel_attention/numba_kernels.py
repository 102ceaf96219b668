"""Channel attention as loops for numba. Imports numba.

A work item is a tile of `ROWS` positions of one image. The first item of an image that a thread meets makes the
weights of all groups; every item then writes its part of the joined map, once. Weights are kept transposed, so that
the softmax runs down the columns in vector code, and with their columns in the order in which the joined map wants
the channels: what a group finds then lies in three runs, and nothing of it is shuffled.

Tensors and scratch memory come as addresses with strides; channels lie side by side. Products are made of small
tiles that stay in registers; rows of weights are filled up to whole vectors.
"""

# mypy: disable-error-code="call-arg, no-untyped-def, no-untyped-call, var-annotated"
# numba infers types, and hands an intrinsic its first argument itself

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from blockforge.kernels.cpu.jit import ONE, ZERO, at, exp, jit, put

LANES = 16
"""Numbers of a vector. Narrower processors work on it in parts."""
ROWS = 24
"""Positions of an item, at most: they stay in the fastest cache between the steps. A multiple of _HIGH."""
_HIGH = 6
"""Rows of a tile in registers."""

_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _THREE = ir.VectorType(_FLOAT, LANES), ir.VectorType(_FLOAT, 3 * LANES)
_FUSED = ("contract",)
_INDEX = types.int64


def _at(builder: Any, address: Any, index: Any, kind: Any = _VECTOR) -> Any:
    """A pointer to what begins with the number at an index from an address."""
    pointer = builder.gep(builder.inttoptr(address, _FLOAT.as_pointer()), [index], inbounds=True)
    return builder.bitcast(pointer, kind.as_pointer())


def _product_tile(rows: int, vectors: int) -> Any:
    """out[o + r * o_r + c] = the sum over t < n of a[i + r * a_r + t * a_t] * b[j + t * b_t + c], for r < rows and
    c < vectors * LANES. The sums stay in registers, which no loop of Python can ask for."""

    @intrinsic
    def tile(typing_context: Any, a: Any, i: Any, a_r: Any, a_t: Any, b: Any, j: Any, b_t: Any, n: Any,
             out: Any, o: Any, o_r: Any) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, i, a_r, a_t, b, j, b_t, n, out, o, o_r = args
            zero, first = ir.Constant(_VECTOR, None), ir.Constant(ir.VectorType(_I32, LANES), None)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(rows)]
            with cgutils.for_range(builder, n) as loop:
                j = builder.add(j, builder.mul(loop.index, b_t))
                columns = [builder.add(j, _I64(c * LANES)) for c in range(vectors)]
                right = [builder.load(_at(builder, b, column), align=4) for column in columns]
                i = builder.add(i, builder.mul(loop.index, a_t))
                for r in range(rows):
                    left = builder.load(_at(builder, a, builder.add(i, builder.mul(_I64(r), a_r)), _FLOAT))
                    left = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), left, _I32(0))
                    left = builder.shuffle_vector(left, left, first)
                    for total, factor in zip(sums[r], right, strict=True):
                        term = builder.fmul(left, factor, flags=_FUSED)
                        builder.store(builder.fadd(builder.load(total), term, flags=_FUSED), total)
            for r in range(rows):
                for c in range(vectors):
                    place = builder.add(builder.add(o, builder.mul(_I64(r), o_r)), _I64(c * LANES))
                    builder.store(builder.load(sums[r][c]), _at(builder, out, place), align=4)
            return context.get_dummy_value()

        return types.void(*[_INDEX] * 11), generate

    return tile


_high_wide, _high_narrow = _product_tile(_HIGH, 2), _product_tile(_HIGH, 1)
_low_wide, _low_narrow = _product_tile(1, 2), _product_tile(1, 1)


@intrinsic
def _unzip(typing_context: Any, x: Any, i: Any, y: Any, o: Any, p: Any, q: Any) -> Any:
    """y[o + n], y[p + n], y[q + n] = x[i + 3 n], x[i + 3 n + 1], x[i + 3 n + 2] for n < LANES."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, i, y, *places = args
        read = builder.load(_at(builder, x, i, _THREE), align=4)
        for j, place in enumerate(places):
            every_third = ir.Constant(ir.VectorType(_I32, LANES), [_I32(3 * n + j) for n in range(LANES)])
            part = builder.shuffle_vector(read, ir.Constant(_THREE, ir.Undefined), every_third)
            builder.store(part, _at(builder, y, place), align=4)
        return context.get_dummy_value()

    return types.void(*[_INDEX] * 6), generate


@jit(inline=True)
def _product(a, i, a_r, a_t, b, j, b_t, rows, n, width, out, o, o_r):
    """As `_product_tile`, for any rows; width is a multiple of LANES."""
    r = 0
    while r < rows:
        high = r + _HIGH <= rows
        left, row = i + r * a_r, o + r * o_r
        for c in range(0, width, 2 * LANES):
            wide = c + 2 * LANES <= width
            if high and wide:
                _high_wide(a, left, a_r, a_t, b, j + c, b_t, n, out, row + c, o_r)
            elif high:
                _high_narrow(a, left, a_r, a_t, b, j + c, b_t, n, out, row + c, o_r)
            elif wide:
                _low_wide(a, left, a_r, a_t, b, j + c, b_t, n, out, row + c, o_r)
            else:
                _low_narrow(a, left, a_r, a_t, b, j + c, b_t, n, out, row + c, o_r)
        r += _HIGH if high else 1


@jit(inline=True)
def _place(channel, C):
    """Where the joined map has one of the channels that lie side by side."""
    return channel % 3 * C + channel // 3


@jit(inline=True)
def _put_row(x, i, y, o, first, C):
    """The C channels x[i:], which are those from `first` on, go into the joined row y[o:]."""
    places = o + _place(first, C), o + _place(first + 1, C), o + _place(first + 2, C)
    done = 0
    while 3 * (done + LANES) <= C:
        _unzip(x, i + 3 * done, y, places[0] + done, places[1] + done, places[2] + done)
        done += LANES
    for c in range(3 * done, C):
        put(y, o + _place(first + c, C), at(x, i + c))


@jit(inline=True)
def _run(first, j, N):
    """Of N channels from `first` on: the first that is j modulo 3, and how many are."""
    skipped = (j - first) % 3
    return skipped, (N - skipped + 2) // 3


@jit(inline=True)
def _make_weights(q, i, q_p, k, j, k_p, P, first, N, width, scale, scratch, Q, W, M):
    """scratch[W:], N rows of `width`: the weights of a group, transposed, their columns in the order of the
    joined map, of which the group's channels are those from `first` on. What lies from Q and M on is overwritten."""
    filled = Q
    for part in range(3):
        skipped, count = _run(first, part, N)
        for p in range(P):
            for c in range(count):
                put(scratch, filled + p * width + c, at(q, i + p * q_p + skipped + 3 * c) * scale)
        filled += count
    _product(k, j, 1, k_p, scratch, Q, width, N, P, width, scratch, W, width)
    S = M + width
    for c in range(width):  # the largest of each column, then their sums
        put(scratch, M + c, at(scratch, W + c))
        put(scratch, S + c, ZERO)
    for row in range(W + width, W + N * width, width):
        for c in range(width):
            w, largest = at(scratch, row + c), at(scratch, M + c)
            put(scratch, M + c, w if w > largest else largest)
    for row in range(W, W + N * width, width):
        for c in range(width):
            e = exp(at(scratch, row + c) - at(scratch, M + c))
            put(scratch, row + c, e)
            put(scratch, S + c, at(scratch, S + c) + e)
    for c in range(width):
        put(scratch, S + c, ONE / at(scratch, S + c))
    for row in range(W, W + N * width, width):
        for c in range(width):
            put(scratch, row + c, at(scratch, row + c) * at(scratch, S + c))


@jit(inline=True)
def width_of(N):
    """The length of a row of weights."""
    return (N + LANES - 1) // LANES * LANES


@jit(inline=True)
def scratch_of(P, C, N):
    """How many numbers `forward` needs for its own use."""
    return (P + C + 2 + ROWS) * width_of(N)


@jit()
def forward(x, q, k, v, strides, L, P, C, G, first, last, scale, scratch, y):
    """y <- the joined map, for the items from `first` to `last`. y is dense.

    Args:
        strides: those of x, q, k and v, of images and of positions.
        scratch: memory for `scratch_of` numbers.
    """
    x_b, x_l, q_b, q_p, k_b, k_p, v_b, v_l = strides
    N, tiles, image = C // G, (L + ROWS - 1) // ROWS, -1
    width = width_of(N)
    Q, W = 0, P * width
    M = W + C * width
    attended = M + 2 * width
    for item in range(first, last):
        b, start = item // tiles, item % tiles * ROWS
        if b != image:
            image = b
            for g in range(G):
                i, j, at_g = b * q_b + g * N, b * k_b + g * N, W + g * N * width
                _make_weights(q, i, q_p, k, j, k_p, P, C + g * N, N, width, scale, scratch, Q, at_g, M)
        rows = min(ROWS, L - start)
        for r in range(rows):
            o = (b * L + start + r) * 3 * C
            _put_row(x, b * x_b + (start + r) * x_l, y, o, 0, C)
            _put_row(v, b * v_b + (start + r) * v_l, y, o, 2 * C, C)
        for g in range(G):
            i, at_g = b * v_b + start * v_l + g * N, W + g * N * width
            _product(v, i, v_l, 1, scratch, at_g, width, rows, N, width, scratch, attended, width)
            for r in range(rows):
                o, at_c = (b * L + start + r) * 3 * C, attended + r * width
                for part in range(3):
                    skipped, count = _run(C + g * N, part, N)
                    to = o + _place(C + g * N + skipped, C)
                    for c in range(count):
                        put(y, to + c, at(scratch, at_c + c))
                    at_c += count
