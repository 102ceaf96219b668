"""Vectors of `LANES` channels in registers, for the loops of `numba_kernels`. Imports numba.

No loop over channels is long enough for LLVM to find them, so they are written as such; wider than a register, a vector
is several. Flat arrays in float32 may be given as the address of their first element.
"""

# mypy: disable-error-code="call-arg"
# numba hands an intrinsic its first argument itself

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 16
POSITIONS = 8 if binding.get_host_cpu_features().get("avx512f") else 4
"""Positions whose sums are kept in registers: as many as there are without spilling."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)


class _Vectors:
    """Vectors of an array, or from an address on, in an intrinsic."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        if isinstance(kind, types.Integer):
            self.data = builder.inttoptr(array, ir.FloatType().as_pointer())
        else:
            self.data = make_array(kind)(context, builder, array).data

    def _pointer(self, index: Any) -> Any:
        where = self.builder.gep(self.data, [index], inbounds=True)
        return self.builder.bitcast(where, _VECTOR.as_pointer())

    def load(self, index: Any) -> Any:
        return self.builder.load(self._pointer(index), align=4)

    def store(self, index: Any, value: Any) -> None:
        self.builder.store(value, self._pointer(index), align=4)


def _add_product(builder: Any, total: Any, a: Any, b: Any) -> None:
    """total <- total + a * b, rounded once; a place in memory that LLVM turns into a register."""
    product = builder.fmul(a, b, flags=("contract",))
    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)


@intrinsic
def convolve(
    context: Any, X: Any, at_x: Any, row: Any, w: Any, at_w: Any, at_b: Any, side: Any, S: Any, at_s: Any
) -> Any:
    """S <- `POSITIONS` adjacent positions of a convolution of X, whose rows are `row` apart. w: the kernel and, at
    at_b, the bias."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        X, w, S = (_Vectors(context, builder, signature.args[i], args[i]) for i in (0, 3, 7))
        at_x, row, at_w, at_b, side, at_s = (args[i] for i in (1, 2, 4, 5, 6, 8))
        lanes, bias = _INDEX(LANES), w.load(at_b)
        sums = [cgutils.alloca_once_value(builder, bias) for _ in range(POSITIONS)]
        with cgutils.for_range(builder, side) as down, cgutils.for_range(builder, side) as right:
            tap = builder.add(builder.mul(down.index, side), right.index)
            weight = w.load(builder.add(at_w, builder.mul(tap, lanes)))
            first = builder.add(at_x, builder.add(builder.mul(down.index, row), builder.mul(right.index, lanes)))
            for i, total in enumerate(sums):
                x = X.load(builder.add(first, _INDEX(i * LANES)))
                _add_product(builder, total, weight, x)
        for i, total in enumerate(sums):
            S.store(builder.add(at_s, _INDEX(i * LANES)), builder.load(total))
        return context.get_dummy_value()

    i = types.int64
    return types.void(X, i, i, w, i, i, i, S, i), generate


@intrinsic
def correlate(
    context: Any, X: Any, at_x: Any, row: Any, D: Any, at_d: Any, height: Any, width: Any, taps: Any, first: Any, V: Any
) -> Any:
    """V <- sums over a band of D times X at the `POSITIONS` taps from `first` on; rows of both are `row` apart. taps:
    where they lie in X."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        X, D, V = (_Vectors(context, builder, signature.args[i], args[i]) for i in (0, 3, 9))
        at_x, row, at_d, height, width, first = (args[i] for i in (1, 2, 4, 5, 6, 8))
        lanes, offsets = _INDEX(LANES), make_array(signature.args[7])(context, builder, args[7]).data
        shifts = [builder.load(builder.gep(offsets, [builder.add(first, _INDEX(i))])) for i in range(POSITIONS)]
        none = ir.Constant(_VECTOR, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, none) for _ in range(POSITIONS)]
        with cgutils.for_range(builder, height) as down, cgutils.for_range(builder, width) as right:
            at = builder.add(builder.mul(down.index, row), builder.mul(right.index, lanes))
            gradient, at = D.load(builder.add(at_d, at)), builder.add(at_x, at)
            for shift, total in zip(shifts, sums, strict=True):
                _add_product(builder, total, gradient, X.load(builder.add(at, shift)))
        for i, total in enumerate(sums):
            V.store(_INDEX(i * LANES), builder.load(total))
        return context.get_dummy_value()

    i = types.int64
    return types.void(X, i, i, D, i, i, i, taps, i, V), generate


@intrinsic
def mix(
    context: Any, S: Any, at_s: Any, apart: Any, heads: Any, m: Any, at_m: Any, y: Any, at_y: Any, outs: Any
) -> Any:
    """y <- the outputs of a block of channels at one position. m: their biases, then the weights of each head; heads
    of S are `apart`. outs: a tuple as long as a group has outputs."""
    outputs = len(outs)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        S, m, y = (_Vectors(context, builder, signature.args[i], args[i]) for i in (0, 4, 6))
        at_s, apart, heads, at_m, at_y = (args[i] for i in (1, 2, 3, 5, 7))
        sums = [
            cgutils.alloca_once_value(builder, m.load(builder.add(at_m, _INDEX(v * LANES)))) for v in range(outputs)
        ]
        with cgutils.for_range(builder, heads) as head:
            s = S.load(builder.add(at_s, builder.mul(head.index, apart)))
            block = builder.mul(builder.add(head.index, _INDEX(1)), _INDEX(outputs * LANES))
            weights = builder.add(at_m, block)
            for v, total in enumerate(sums):
                channels = [(v * LANES + lane) // outputs for lane in range(LANES)]
                spread = builder.shuffle_vector(s, s, ir.Constant(ir.VectorType(ir.IntType(32), LANES), channels))
                weight = m.load(builder.add(weights, _INDEX(v * LANES)))
                _add_product(builder, total, weight, spread)
        for v, total in enumerate(sums):
            y.store(builder.add(at_y, _INDEX(v * LANES)), builder.load(total))
        return context.get_dummy_value()

    i = types.int64
    return types.void(S, i, i, i, m, i, y, i, outs), generate


@intrinsic
def unmix(
    context: Any, dy: Any, at_y: Any, m: Any, at_m: Any, heads: Any, D: Any, at_d: Any, apart: Any, G: Any, outs: Any
) -> Any:
    """D <- the gradients of a block of channels of every head at one position. G <- those of its outputs: of each
    channel's first, of each one's second, and so on, as the weights m lie, too."""
    outputs = len(outs)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dy, m, D, G = (_Vectors(context, builder, signature.args[i], args[i]) for i in (0, 2, 5, 8))
        at_y, at_m, heads, at_d, apart = (args[i] for i in (1, 3, 4, 6, 7))
        given = [dy.load(builder.add(at_y, _INDEX(v * LANES))) for v in range(outputs)]
        dealt = [_every(builder, given, o, outputs) for o in range(outputs)]
        for o, vector in enumerate(dealt):
            G.store(_INDEX(o * LANES), vector)
        with cgutils.for_range(builder, heads) as head:
            block = builder.mul(builder.add(head.index, _INDEX(1)), _INDEX(outputs * LANES))
            weights = builder.add(at_m, block)
            total = cgutils.alloca_once(builder, _VECTOR)
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
            for o, vector in enumerate(dealt):
                _add_product(builder, total, m.load(builder.add(weights, _INDEX(o * LANES))), vector)
            D.store(builder.add(at_d, builder.mul(head.index, apart)), builder.load(total))
        return context.get_dummy_value()

    i = types.int64
    return types.void(dy, i, m, i, i, D, i, i, G, outs), generate


@intrinsic
def add_mixing(context: Any, dm: Any, at_m: Any, G: Any, S: Any, at_s: Any, apart: Any, heads: Any, outs: Any) -> Any:
    """dm <- what one position adds to the gradients of the mixing's biases and weights; G of `unmix`."""
    outputs = len(outs)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dm, G, S = (_Vectors(context, builder, signature.args[i], args[i]) for i in (0, 2, 3))
        at_m, at_s, apart, heads = (args[i] for i in (1, 4, 5, 6))
        given = [G.load(_INDEX(o * LANES)) for o in range(outputs)]
        for o, vector in enumerate(given):
            to = builder.add(at_m, _INDEX(o * LANES))
            dm.store(to, builder.fadd(dm.load(to), vector))
        with cgutils.for_range(builder, heads) as head:
            block = builder.mul(builder.add(head.index, _INDEX(1)), _INDEX(outputs * LANES))
            s = S.load(builder.add(at_s, builder.mul(head.index, apart)))
            for o, vector in enumerate(given):
                to = builder.add(builder.add(at_m, block), _INDEX(o * LANES))
                product = builder.fmul(s, vector, flags=("contract",))
                dm.store(to, builder.fadd(dm.load(to), product, flags=("contract",)))
        return context.get_dummy_value()

    i = types.int64
    return types.void(dm, i, G, S, i, i, i, outs), generate


def _every(builder: Any, vectors: list[Any], first: int, step: int) -> Any:
    """The elements `first`, `first` + `step`, ... of vectors one behind the other."""
    joined, index = vectors[0], ir.VectorType(ir.IntType(32), LANES)
    for v, vector in enumerate(vectors):
        at = [first + lane * step - v * LANES for lane in range(LANES)]
        chosen = [LANES + i if 0 <= i < LANES else lane for lane, i in enumerate(at)]
        joined = builder.shuffle_vector(joined, vector, ir.Constant(index, chosen))
    return joined
