"""Multi-head mixed convolution compiled by numba for CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.buffers import address, empty, zeros
from blockforge.kernels.cpu.jit import pieces, spread
from blockforge.kernels.mixed_conv import numba_kernels, operators
from blockforge.kernels.mixed_conv.numba_kernels import LANES

_FORWARD_BYTES, _BACKWARD_BYTES = 2**18, 2**19
"""Of a band, so that it stays in the second cache, of which half a MiB at least is taken to be there."""


class _Work:
    """The operands as the kernels take them, and how the work is cut.

    Attributes:
        kernels: of each block of channels, (blocks, taps of all heads + n, LANES): weights, then biases.
        mixing: likewise, (blocks, 1 + n, LANES * m): biases, then each head's weights.
        outputs: m, of a group.
    """

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, mix_bias: Tensor | None, sides: list[int]
    ) -> None:
        x, heads = x.float(), len(sides)
        self.x = x if x.stride(-1) == 1 else x.contiguous()
        self.sides, self.channels = sides, weight.shape[1]
        if mix is None or mix_bias is None:
            one = torch.eye(heads, dtype=torch.float32, device=x.device)
            mix, mix_bias = one.repeat(self.channels, 1), zeros((heads * self.channels,), x)
        self.outputs = len(mix_bias) // self.channels
        self.kernels = _blocks(torch.cat([weight, bias]), 1)
        self.mixing = _blocks(torch.cat([mix_bias[None], mix.t()]), self.outputs)

    def arrays(self, mixing: Tensor, maps: int, most: int) -> tuple[int, int, tuple[Any, ...]]:
        """Pieces and items of the work, and what the kernels take first.

        Args:
            maps: that a band holds of each head.
            most: bytes of a band.
        """
        batch, height, width = self.x.shape[:3]
        a_row = 4 * LANES * (maps * len(self.sides) + 1) * (width + max(self.sides))
        bands = -(-height // max(1, most // a_row))
        rows = -(-height // bands)
        items = batch * -(-height // rows) * len(mixing)
        size, strides = (batch, height, width, self.channels), self.x.stride()[:3]
        heads, blocks = len(self.sides), -(-self.channels // LANES)
        taps = sum(side * side for side in self.sides)
        addresses = (
            address(self.x, (batch, height, width, heads * self.channels), inner=1),
            address(self.kernels, (blocks, taps + heads, LANES), inner=3),
            address(mixing, (blocks, 1 + heads, LANES * self.outputs), inner=3),
        )
        count = pieces(items, self.x.numel() * taps // heads)
        return count, items, (*addresses, strides, size, np.array(self.sides, np.int64), (0,) * self.outputs, rows)

    def turned(self) -> Tensor:
        """`kernels` with each turned half around, and biases of 0."""
        *heads, biases = self.kernels.split([*(side * side for side in self.sides), len(self.sides)], dim=1)
        return torch.cat([*(head.flip(1) for head in heads), torch.zeros_like(biases)], dim=1)


def _blocks(rows: Tensor, each: int) -> Tensor:
    """(rows, C / n * each) -> (blocks, rows, LANES * each), zeros in channels that there are not."""
    padded = F.pad(rows, (0, -rows.shape[1] % (LANES * each)))
    return padded.unflatten(1, (-1, LANES * each)).transpose(0, 1).contiguous()


def _dealt(mixing: Tensor, rows: int) -> Tensor:
    """Each row as a matrix of so many rows, transposed."""
    return mixing.unflatten(2, (rows, -1)).mT.flatten(2)


def forward(x: Tensor, *others: Any) -> Tensor:
    """See `operators`."""
    work = _Work(x, *others)
    count, items, arrays = work.arrays(work.mixing, 1, _FORWARD_BYTES)
    shape = (*x.shape[:3], work.channels * work.outputs)
    y = empty(shape, x)
    target = address(y, shape, inner=4)

    def run(piece: int, first: int, last: int) -> None:
        numba_kernels.forward(*arrays, first, last, target)

    spread(count, items, run)
    return y.to(x.dtype)


def backward(dy: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """See `operators`."""
    work = _Work(x, *others)
    dealt, turned, dy = _dealt(work.mixing, LANES).contiguous(), work.turned(), dy.float().contiguous()
    count, items, arrays = work.arrays(dealt, 2, _BACKWARD_BYTES)
    dx, dkernels, dmixing = empty(x.shape, x), zeros((count, *turned.shape), x), zeros((count, *dealt.shape), x)
    of_y = address(dy, (*x.shape[:3], work.channels * work.outputs), inner=4)

    def run(piece: int, first: int, last: int) -> None:
        own = (address(t, t.shape, inner=t.ndim) for t in (dx, dkernels[piece], dmixing[piece]))
        numba_kernels.backward(*arrays, first, last, address(turned, turned.shape, inner=3), of_y, *own)

    spread(count, items, run)
    rows = (dkernels.sum(0), 1), (_dealt(dmixing.sum(0), work.outputs), work.outputs)
    dkernel, dmix = (t.transpose(0, 1).flatten(1)[:, : work.channels * each] for t, each in rows)
    return dx.to(x.dtype), dkernel[: -len(work.sides)].contiguous(), dmix[1:].t().contiguous(), dmix[0].clone()


mixed_conv = operators.differentiable("numba", forward, backward)
