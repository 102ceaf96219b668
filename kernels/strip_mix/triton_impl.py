"""Group strip mixing on CUDA devices: products that read the map where it lies, rows or columns by its strides, add the
position table on the way, and write where the next layer reads, beside the map that is joined. The backward pass keeps
x, the position table and the weight.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile
from blockforge.kernels.strip_mix import torch_impl, triton_kernels

_MOST_POSITIONS, _MOST_SUMMED = 64, 32
"""Positions of a tile, and those that one product sums over."""
_MIXED, _SUMMED = 2048, 1024
"""Elements of a tile: as many as registers hold without spilling (seen in what the compiler gives, not timed)."""
_PROGRAMS = 512
"""Up to so many programs share the sums of a weight's gradient; constant, so that they are the same on every device."""
_TENSORS = "Tensor x, Tensor pos, Tensor weight, Tensor bias, bool columns"


def strip_mix(
    x_BHWC: Tensor,
    pos_HWC: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    axis: str,
    beside_BHWC: Tensor | None = None,
    beside_first: bool = False,
) -> Tensor:
    """See the package's `strip_mix`."""
    y: Tensor = _operator(x_BHWC, pos_HWC, weight, bias, axis == "columns", beside_BHWC, beside_first)
    return y


class _Launch(NamedTuple):
    """What the kernels of a call share.

    Attributes:
        lines, length: S and L of `triton_kernels`.
        groups, per_group: G, and the channels of a group.
        rows: N of `triton_kernels`.
        block_l: positions of a tile.
    """

    columns: bool
    lines: int
    length: int
    groups: int
    per_group: int
    strip: int
    rows: int
    block_l: int

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, columns: bool) -> _Launch:
        batch, height, width, channels = x.shape
        lines, length = (width, height) if columns else (height, width)
        groups = weight.shape[0] // length
        rows = batch * lines * (channels // groups)
        block = min(_MOST_POSITIONS, tile(length))
        return cls(columns, lines, length, groups, channels // groups, weight.shape[3], rows, block)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.rows, self.lines, self.length, self.groups, self.per_group

    def strides(self, t: Tensor) -> tuple[int, ...]:
        """Of batch, if it has one, line, position and channel."""
        return (t.transpose(-3, -2) if self.columns else t).stride()

    def options(self, x: Tensor, elements: int, warps: int) -> dict[str, Any]:
        """Of a kernel with tiles of so many elements."""
        return {
            "STRIP": self.strip,
            "BLOCK_L": self.block_l,
            "BLOCK_N": min(elements // self.block_l, tile(self.rows)),
            "PRECISION": precision(x),
            "num_warps": warps,
            "num_stages": 1,
        }

    def mix(self, x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, y: Tensor, beside: Tensor | None = None,
            joined: Tensor | None = None, *, of_gradient: bool = False) -> None:  # fmt: skip
        """y <- the mixed x; joined <- beside. `of_gradient`: y <- the gradient of x from that of y."""
        side = self.length * self.strip, self.strip
        strides = (self.strides(t) for t in (x, pos, x if beside is None else beside, y))
        options = self.options(x, _MIXED, 4)
        tiles_l, tiles_n = triton.cdiv(self.length, self.block_l), triton.cdiv(self.rows, options["BLOCK_N"])
        start(triton_kernels.mix, (self.groups * tiles_l * tiles_n,),
            x, pos, weight, bias, x if beside is None else beside, y, y if joined is None else joined,
            *(n for of_map in strides for n in of_map), *(side[::-1] if of_gradient else side),
            *self.sizes, tiles_l, tiles_n, OF_GRADIENT=of_gradient, HAS_BESIDE=beside is not None,
            BLOCK_K=min(self.block_l, _MOST_SUMMED), **options,
        )  # fmt: skip

    def of_parameters(self, dy: Tensor, x: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias in float32."""
        options = self.options(x, _SUMMED, max(4, self.block_l // 8))
        tiles, tiles_n = triton.cdiv(self.length, self.block_l), triton.cdiv(self.rows, options["BLOCK_N"])
        programs = self.groups * tiles * tiles * self.strip
        a_part = triton.cdiv(tiles_n, max(1, min(tiles_n, _PROGRAMS // programs)))
        parts = triton.cdiv(tiles_n, a_part)
        outputs = self.groups * self.length
        dweight = x.new_empty(parts, outputs, self.length, 1, self.strip, dtype=torch.float32)
        dbias = x.new_empty(parts, outputs, dtype=torch.float32)
        strides = (*self.strides(dy), *self.strides(x), *self.strides(pos))
        start(
            triton_kernels.gradients,
            (programs * parts,),
            dy,
            x,
            pos,
            dweight,
            dbias,
            *strides,
            *self.sizes,
            tiles,
            parts,
            a_part,
            **options,
        )
        return (dweight.sum(0), dbias.sum(0)) if parts > 1 else (dweight[0], dbias[0])


@library.custom_op(
    "blockforge::strip_mix_triton",
    mutates_args=(),
    schema=f"({_TENSORS}, Tensor? beside, bool beside_first) -> Tensor",
)
def _operator(
    x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, columns: bool, beside: Tensor | None, beside_first: bool
) -> Tensor:
    out = _like(x, beside)
    y, joined = _parts(out, beside, beside_first)
    _Launch.of(x, weight, columns).mix(x, pos, weight.contiguous(), bias.contiguous(), y, beside, joined)
    return out


@_operator.register_fake
def _(
    x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, columns: bool, beside: Tensor | None, beside_first: bool
) -> Tensor:
    return _like(x, beside)


@library.custom_op(
    "blockforge::strip_mix_triton_backward",
    mutates_args=(),
    schema=f"(Tensor dy, {_TENSORS}) -> (Tensor, Tensor, Tensor)",
)
def _derivative(
    dy: Tensor, x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, columns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    launch, dx = _Launch.of(x, weight, columns), x.new_empty(x.shape)
    launch.mix(dy, pos, weight.contiguous(), bias, dx, of_gradient=True)
    dweight, dbias = launch.of_parameters(dy, x, pos)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


@_derivative.register_fake
def _(dy: Tensor, x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, columns: bool) -> Any:
    return tuple(t.new_empty(t.shape) for t in (x, weight, bias))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.columns, beside, ctx.beside_first = inputs
    ctx.joined = beside is not None
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    x, pos, weight, bias = ctx.saved_tensors
    dy, dbeside = _parts(dout, x if ctx.joined else None, ctx.beside_first)
    if is_asked_for_more(dy):
        plain = partial(torch_impl.strip_mix, axis="columns" if ctx.columns else "rows")
        return (*of_plain(plain, dy, x, pos, weight, bias), None, dbeside, None)
    dx, dweight, dbias = _derivative(dy, x, pos, weight, bias, ctx.columns)
    return dx, dx.sum(0, dtype=torch.float32).to(pos.dtype), dweight, dbias, None, dbeside, None


_operator.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.blockforge.strip_mix_triton)
def _flops(x_shape: Any, pos_shape: Any, weight_shape: Any, *others: Any, **more: Any) -> int:
    """As a counter sees them in the convolution."""
    batch, height, width, channels = x_shape
    return 2 * batch * height * width * channels * weight_shape[1] * weight_shape[3]


def _like(x: Tensor, beside: Tensor | None) -> Tensor:
    """An output of the operator."""
    return x.new_empty(*x.shape[:3], (1 if beside is None else 2) * x.shape[3])


def _parts(out: Tensor, beside: Tensor | None, beside_first: bool) -> tuple[Tensor, Tensor | None]:
    """y and what is beside it in a joined map."""
    if beside is None:
        return out, None
    first, second = out.chunk(2, dim=3)
    return (second, first) if beside_first else (first, second)
