"""State space duality with standard operations, chunk by chunk.

Inside a chunk of Q positions the scan is a masked attention: (C B^T * decays) x. From chunk to chunk goes one
state a head. Every decay is the exponential of a sum of negative numbers, never a quotient, so nothing
overflows at any step size or length.

Eager calls run as one operator with its own derivative, one chunk at a time: what is at work stays in the cache
and is small beside the result. A captured graph (compile, export, tracing) and a transform of torch.func take all
chunks at once.

Letters: B batch, L length, Q positions of a chunk, G groups, R heads of a group, P width of a head, N states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from blockforge.kernels.observers import as_given, is_functional
from blockforge.kernels.ssd import captured
from blockforge.kernels.ssd.operators import SIGNATURE

CHUNK = 64
"""Positions in a chunk: where the products of a chunk cost about what the state's cost."""


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """See the package's `ssd`."""
    if is_functional():
        return captured.ssd(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse)
    y: Tensor = _operator(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse)
    return y


class _Operands(NamedTuple):
    """What a scan reads."""

    x: Tensor  # (B, L, H, P)
    dt: Tensor  # (B, L, H)
    A: Tensor  # (H)
    B: Tensor  # (B, L, G, N)
    C: Tensor  # (B, L, G, N)
    D: Tensor | None  # (H)

    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return torch.promote_types(self.x.dtype, torch.float32)

    def part(self, positions: slice, reverse: bool) -> _Operands:
        """Some positions in the order of the scan, in the type of the arithmetic."""
        x, dt, B, C = (t[:, positions].to(self.dtype()) for t in (self.x, self.dt, self.B, self.C))
        if reverse:
            x, dt, B, C = (t.flip(1) for t in (x, dt, B, C))
        return _Operands(x, dt, self.A.to(self.dtype()), B, C, None if self.D is None else self.D.to(self.dtype()))

    def parts(self, reverse: bool) -> list[slice]:
        """The chunks, in the order of the scan."""
        length = self.x.shape[1]
        parts = [slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]
        return parts[::-1] if reverse else parts


def _forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Tensor:
    whole, y = _Operands(x, dt, A, B, C, D), x.new_empty(x.shape)
    state: Tensor | None = None
    with as_given(x):
        for positions in whole.parts(reverse):
            y_part, state = _scan(whole.part(positions, reverse), state)
            y[:, positions] = y_part.flip(1) if reverse else y_part
    return y


def _backward(dy: Tensor, *operands: Any) -> tuple[Tensor | None, ...]:
    """The chunks once more, from the last to the first, each with its graph."""
    *tensors, reverse = operands
    whole = _Operands(*tensors)
    dtype = whole.dtype()
    grads = [torch.empty_like(t) for t in (whole.x, whole.dt, whole.B, whole.C)]
    of_A, of_D = (torch.zeros_like(whole.A, dtype=dtype) for _ in range(2))
    with as_given(dy):
        of_state: Tensor | None = None
        for positions, state in reversed(list(zip(whole.parts(reverse), _entering(whole, reverse), strict=True))):
            of_y = dy[:, positions].to(dtype)
            part = whole.part(positions, reverse)
            of_part, of_state = _gradients(part, state, of_y.flip(1) if reverse else of_y, of_state)
            for grad, g in zip(grads, (of_part.x, of_part.dt, of_part.B, of_part.C), strict=True):
                grad[:, positions] = g.flip(1) if reverse else g
            of_A += of_part.A
            if of_part.D is not None:
                of_D += of_part.D
    of_x, of_dt, of_B, of_C = grads
    return of_x, of_dt, of_A.to(whole.A), of_B, of_C, None if whole.D is None else of_D.to(whole.D)


def _entering(whole: _Operands, reverse: bool) -> list[Tensor | None]:
    """The state that enters each chunk."""
    states: list[Tensor | None] = [None]
    with torch.no_grad():
        for positions in whole.parts(reverse)[:-1]:
            states.append(_Chunk.of(whole.part(positions, reverse)).leaving(states[-1]))
    return states


def _gradients(
    run: _Operands, state: Tensor | None, dy: Tensor, of_leaving: Tensor | None
) -> tuple[_Operands, Tensor | None]:
    """Gradients of a chunk's operands and of the state that enters it; what leaves the last chunk has none."""
    with torch.enable_grad():
        leaves: list[Any] = [None if t is None else t.detach().requires_grad_() for t in (*run, state)]
        y, leaving = _scan(_Operands(*leaves[:-1]), leaves[-1])
    results, of_results = ((y,), (dy,)) if of_leaving is None else ((y, leaving), (dy, of_leaving))
    of_leaves = iter(torch.autograd.grad(results, [t for t in leaves if t is not None], of_results))
    grads: list[Any] = [None if t is None else next(of_leaves) for t in leaves]
    return _Operands(*grads[:-1]), grads[-1]


_operator = SIGNATURE.bind("ssd", _forward, _backward, opaque=False)


def _scan(run: _Operands, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y_BQHP of a chunk from the state that enters it, and the state that leaves it."""
    chunk = _Chunk.of(run)
    y_BQHP = chunk.outputs(state).permute(0, 3, 1, 2, 4).flatten(2, 3)
    return y_BQHP if run.D is None else y_BQHP + run.D[:, None] * run.x, chunk.leaving(state)


class _Chunk(NamedTuple):
    """A chunk, head by head. States are (B, G, R, N, P); None: 0, before the first chunk."""

    dtx: Tensor  # (B, G, R, Q, P), each x times its step
    log: Tensor  # (B, G, R, Q), logarithms of the decays
    B: Tensor  # (B, G, Q, N)
    C: Tensor  # (B, G, Q, N)

    @classmethod
    def of(cls, run: _Operands) -> _Chunk:
        groups = run.B.shape[2]
        x_BGRQP = run.x.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)
        dt_BGRQ = run.dt.unflatten(2, (groups, -1)).permute(0, 2, 3, 1)
        log_BGRQ = dt_BGRQ * run.A.unflatten(0, (groups, -1))[..., None]
        return cls(dt_BGRQ.unsqueeze(-1) * x_BGRQP, log_BGRQ, run.B.transpose(1, 2), run.C.transpose(1, 2))

    def outputs(self, state: Tensor | None) -> Tensor:
        """y_BGRQP without the skip by D."""
        y = ((self.C @ self.B.mT).unsqueeze(2) * captured.decays(self.log)) @ self.dtx
        if state is None:
            return y
        return y + self.log.cumsum(-1).exp().unsqueeze(-1) * (self.C.unsqueeze(2) @ state)

    def leaving(self, state: Tensor | None) -> Tensor:
        """The state behind the chunk."""
        to_end_BGRQ = captured.to_end(self.log).exp()
        added = self.B.mT.unsqueeze(2) @ (to_end_BGRQ.unsqueeze(-1) * self.dtx)
        return added if state is None else self.log.sum(-1).exp()[..., None, None] * state + added
