"""State space duality with standard operations, chunk by chunk.

Inside a chunk of Q positions the scan is a masked attention: (C B^T * decays) x. From chunk to chunk goes one
state a head. Every decay is the exponential of a sum of negative numbers, never a quotient, so nothing
overflows at any step size or length. One chunk at a time, so the working memory is small beside the result.

Eager calls run as one operator, `blockforge::ssd`, with its own derivative: an operator counter and the
autograd graph see a scan and not how it is chunked, and training keeps nothing but the scan's inputs.
Under torch.compile and torch.export the chunks are traced.

Letters: B batch, L length, Q positions of a chunk, G groups, R heads of a group, P width of a head, N states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 64
"""Positions in a chunk: where the products of a chunk cost about what the state's cost."""


def torch_impl(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    """See `ssd`."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _traceable(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse)
    return _operator(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse)


@torch.library.custom_op(
    "blockforge::ssd",
    mutates_args=(),
    schema="(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, bool reverse) -> Tensor",
)
def _operator(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Tensor:
    y = x.new_empty(x.shape)
    with torch.autocast(x.device.type, enabled=False):
        for part, y_BQHP in _chunks(x, dt, A, B, C, D, reverse):
            y[:, part] = y_BQHP
    return y


@_operator.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """The chunks once more, this time with their graph."""
    tensors: list[Any] = [t if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
    x, dt, A, B, C, D = tensors
    with torch.enable_grad():
        y = _traceable(x, dt, A, B, C, D, ctx.reverse)
    given = [t for t in tensors if t is not None]
    grads = iter(torch.autograd.grad(y, given, dy))
    return (*(None if t is None else next(grads) for t in tensors), None)


_operator.register_autograd(_backward, setup_context=_save)


def _traceable(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        chunks = [y for _, y in _chunks(x, dt, A, B, C, D, reverse)]
        return torch.cat(chunks[::-1] if reverse else chunks, dim=1).to(x.dtype)


def _chunks(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool
) -> Iterator[tuple[slice, Tensor]]:
    """The chunks in scan order: where each lies, and its y_BQHP."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    length = x.shape[1]
    starts = range(0, length, CHUNK)
    state: Tensor | None = None
    for start in reversed(starts) if reverse else starts:
        part = slice(start, min(start + CHUNK, length))
        x_BQHP, dt_BQH, B_BQGN, C_BQGN = (
            t[:, part].flip(1).to(dtype) if reverse else t[:, part].to(dtype) for t in (x, dt, B, C)
        )
        y, state = _chunk(x_BQHP, dt_BQH, B_BQGN, C_BQGN, A.to(dtype), state)
        if D is not None:
            y = y + D.to(dtype)[:, None] * x_BQHP
        yield part, y.flip(1) if reverse else y


def _chunk(
    x_BQHP: Tensor, dt_BQH: Tensor, B_BQGN: Tensor, C_BQGN: Tensor, A_H: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One chunk: its y_BQHP from the state_BGRNP that enters, and the state that leaves."""
    groups = B_BQGN.shape[2]
    x_BGRQP = x_BQHP.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)
    dt_BGRQ = dt_BQH.unflatten(2, (groups, -1)).permute(0, 2, 3, 1)
    B_BGQN, C_BGQN = B_BQGN.transpose(1, 2), C_BQGN.transpose(1, 2)
    log_BGRQ = dt_BGRQ * A_H.unflatten(0, (groups, -1))[..., None]

    decay_BGRQQ = _decays(log_BGRQ)
    scores_BGQQ = C_BGQN @ B_BGQN.mT
    y_BGRQP = (scores_BGQQ.unsqueeze(2) * decay_BGRQQ) @ (dt_BGRQ.unsqueeze(-1) * x_BGRQP)

    to_end_BGRQ = decay_BGRQQ[..., -1, :] * dt_BGRQ
    added_BGRNP = B_BGQN.mT.unsqueeze(2) @ (to_end_BGRQ.unsqueeze(-1) * x_BGRQP)
    if state is None:
        state = added_BGRNP
    else:
        from_start_BGRQ = log_BGRQ.cumsum(-1).exp()
        y_BGRQP = y_BGRQP + from_start_BGRQ.unsqueeze(-1) * (C_BGQN.unsqueeze(2) @ state)
        state = from_start_BGRQ[..., -1, None, None] * state + added_BGRNP
    return y_BGRQP.permute(0, 3, 1, 2, 4).flatten(2, 3), state


def _decays(log_Q: Tensor) -> Tensor:
    """(..., Q) -> (..., Q, Q): at [t, s] the decay from s to t, exp(log[s+1] + ... + log[t]); 0 where s > t.

    Each sum is its own: the difference of two running sums would lose digits where they are large.
    """
    length = log_Q.shape[-1]
    steps = log_Q.unsqueeze(-1).expand(*log_Q.shape, length)
    return steps.tril(-1).cumsum(-2).exp().tril()
