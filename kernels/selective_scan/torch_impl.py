"""The selective scan with standard operations, vectorised over chunks of the sequence.

The recurrence h[t] = a[t] h[t-1] + b[t] is cut into chunks. First every chunk runs from zero, all chunks side
by side, to learn what it adds to its end; then these ends are carried from chunk to chunk, each through the
product of a whole chunk's decays; then every chunk runs again from its true start. That is about 2 sqrt(2 L)
small operations in place of L, linear work, and nothing but products of decays between 0 and 1: no quotient
of decays, hence no overflow at any delta.

Letters of shapes: B batch, L length, N states (a block of them at a time), G groups, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.observers import is_functional
from blockforge.kernels.selective_scan import captured

_OVERHEAD = 16_000
"""A small operation costs as much as this many elements of it, whatever its size (measured on CPUs)."""
_STATES_AT_ONCE = 4
"""Bounds the memory: states are independent of each other, so a wide state is scanned in blocks."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """See the package's `selective_scan`. Fastest where u and delta lie in memory with their channels side by
    side, as transposed (B, L, D) maps. The backward pass computes the states anew.

    A captured graph (compile, export, tracing) holds another form, and so has a transform of torch.func.
    """
    if is_functional():
        return captured.selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
    y: Tensor = _Scan.apply(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
    return y


def workspace(length: int, dim: int, d_state: int) -> int:
    """Most elements alive at once inside a scan of one sequence without gradients, its result included."""
    at_once = min(d_state, _STATES_AT_ONCE)
    chunks, whole = _Chunks.cut(length, dim * at_once, reverse=False), length * dim
    buffer = (chunks.count * chunks.size + 2) * dim
    carried = (2 * chunks.count + 1) * dim * (chunks.count > 1)
    later = min(d_state - at_once, at_once)  # states of the second block, which finds a result to add to
    scanning = max(at_once * (2 * buffer + carried), later and later * (2 * buffer + carried) + whole)
    return buffer + max(3 * whole, scanning, buffer * at_once + whole)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
    ) -> Tensor:
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias)
        ctx.options = delta_softplus, reverse
        return _forward(_operands(u, delta, A, B, C, delta_bias, delta_softplus, reverse), D).to(u.dtype).mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        u, delta, A, B, C, D, delta_bias = tensors = ctx.saved_tensors
        delta_softplus, reverse = ctx.options
        if is_asked_for_more(grad):
            plain = partial(captured.selective_scan, delta_softplus=delta_softplus, reverse=reverse)
            return (*of_plain(plain, grad, *tensors), None, None)
        x = _operands(u, delta, A, B, C, delta_bias, delta_softplus, reverse)
        grad_BLD = grad.mT.to(x.u.dtype).contiguous()
        grads = _backward(x, grad_BLD, D)
        if delta_softplus:
            raw = delta.mT.to(x.u.dtype)
            grads["delta"].mul_(torch.sigmoid(raw if delta_bias is None else raw + delta_bias))
        of_bias = grads["delta"].sum((0, 1)).to(delta_bias.dtype) if delta_bias is not None else None
        of_D = (grad_BLD * x.u).sum((0, 1)).to(D.dtype) if D is not None else None
        return (
            grads["u"].mT.to(u.dtype),
            grads["delta"].mT.to(delta.dtype),
            grads["A"].mT.to(A.dtype),
            grads["B"].permute(0, 3, 2, 1).to(B.dtype),
            grads["C"].permute(0, 3, 2, 1).to(C.dtype),
            of_D,
            of_bias,
            None,
            None,
        )


@dataclass(frozen=True)
class _Chunks:
    """How a sequence is cut: `count` chunks of `size`, the last one filled up. Buffers of it have one more
    position before and after, so that a neighbour's value is a view."""

    length: int
    count: int
    size: int
    reverse: bool

    @classmethod
    def cut(cls, length: int, elements: int, reverse: bool) -> _Chunks:
        """The cheaper of chunks and one step after another, for steps of so many elements."""
        size = max(1, round(math.sqrt(length / 2)))
        count = -(-length // size)
        chunked = (2 * size + count) * _OVERHEAD + 2 * length * elements
        stepwise = length * (_OVERHEAD + elements)
        return cls(length, 1, length, reverse) if stepwise <= chunked else cls(length, count, size, reverse)

    def buffer(self, like: Tensor, *inner: int) -> Tensor:
        """An empty buffer for the sequence, 0 where it is filled up: (B, 1 + count * size + 1, *inner)."""
        buffer = like.new_empty(like.shape[0], self.count * self.size + 2, *inner)
        buffer[:, 0].zero_()
        buffer[:, self.length + 1 :].zero_()
        return buffer

    def inside(self, buffer: Tensor) -> Tensor:
        """The part of a buffer that holds the sequence."""
        return buffer[:, 1 : self.length + 1]

    def previous(self, buffer: Tensor) -> Tensor:
        """The same, one step earlier in the order of the scan."""
        start = 2 if self.reverse else 0
        return buffer[:, start : start + self.length]

    def chunks(self, buffer: Tensor) -> Tensor:
        """(B, count, size, ...)."""
        return buffer[:, 1:-1].unflatten(1, (self.count, self.size))

    def next_chunks(self, buffer: Tensor) -> Tensor:
        """The same, one step later in the order of the scan."""
        shifted = buffer[:, :-2] if self.reverse else buffer[:, 2:]
        return shifted.unflatten(1, (self.count, self.size))


@dataclass(frozen=True)
class _Operands:
    """The operands in the layout and the type of the arithmetic."""

    u: Tensor  # (B, L, D)
    step: Tensor  # a buffer of (D): delta with bias and softplus
    A: Tensor  # (N, D)
    B: Tensor  # (B, L, N, G)
    C: Tensor  # (B, L, N, G)
    chunks: _Chunks

    def blocks(self) -> Iterator[slice]:
        """The states, a block at a time."""
        for start in range(0, self.A.shape[0], _STATES_AT_ONCE):
            yield slice(start, min(start + _STATES_AT_ONCE, self.A.shape[0]))

    def grouped(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., G, D / G)."""
        return x.unflatten(-1, (self.B.shape[-1], -1))

    def states(self, states: slice) -> tuple[Tensor, Tensor]:
        """The decays and the states of every position, buffers of (N, D)."""
        A, chunks = self.A[states], self.chunks
        decay = (self.step.unsqueeze(2) * A).exp_()
        h = chunks.buffer(self.u, *A.shape)
        first, *others = self.grouped(chunks.inside(h)).unbind(2)
        B_first, *B_others = self.B[:, :, states, :, None].unbind(2)
        torch.mul(self.grouped(chunks.inside(self.step)), self.grouped(self.u), out=first)
        for h_n, B_n in zip(others, B_others, strict=True):
            torch.mul(first, B_n, out=h_n)
        first.mul_(B_first)
        passed = self.passed(chunks.chunks(self.step), A)
        _scan_(chunks.chunks(decay), chunks.chunks(h), passed, chunks.reverse)
        return decay, h

    def passed(self, steps: Tensor, A: Tensor) -> Tensor | None:
        """What a whole chunk leaves of a state that enters it, (B, count, N, D); None with one chunk."""
        if self.chunks.count == 1:
            return None
        return (steps.sum(2).unsqueeze(2) * A).exp_()


def _operands(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> _Operands:
    dtype = torch.promote_types(u.dtype, torch.promote_types(A.dtype, torch.float32))
    u_BLD, raw = u.mT.to(dtype).contiguous(), delta.mT.to(dtype)
    batch, length, dim = u_BLD.shape
    chunks = _Chunks.cut(length, batch * dim * min(A.shape[1], _STATES_AT_ONCE), reverse)
    step = chunks.buffer(u_BLD, dim)
    _step(raw, delta_bias, delta_softplus, chunks.inside(step))
    B_BLNG, C_BLNG = (t.to(dtype).permute(0, 3, 2, 1) for t in (B, C))
    return _Operands(u_BLD, step, A.to(dtype).mT.contiguous(), B_BLNG, C_BLNG, chunks)


def _step(raw: Tensor, bias: Tensor | None, softplus: bool, out: Tensor) -> None:
    """out <- softplus(raw + bias), in few passes; logsigmoid is four times as fast as softplus on a CPU."""
    if softplus:
        torch.neg(F.logsigmoid(raw.neg() if bias is None else -bias - raw), out=out)
    elif bias is not None:
        torch.add(raw, bias, out=out)
    else:
        out.copy_(raw)


def _forward(x: _Operands, D: Tensor | None) -> Tensor:
    y: Tensor | None = None
    for states in x.blocks():
        y = _add_outputs(y, x, states)
    assert y is not None
    return y.addcmul_(x.u, D.to(y.dtype)) if D is not None else y


def _add_outputs(y: Tensor | None, x: _Operands, states: slice) -> Tensor:
    """y + what a block of states gives."""
    h = x.grouped(x.chunks.inside(x.states(states)[1])).unbind(2)
    C = x.C[:, :, states, :, None].unbind(2)
    first = y is None
    if y is None:
        y = torch.empty_like(x.u)
        torch.mul(h[0], C[0], out=x.grouped(y))
    for h_n, C_n in zip(h[first:], C[first:], strict=True):
        x.grouped(y).addcmul_(h_n, C_n)
    return y


def _backward(x: _Operands, grad: Tensor, D: Tensor | None) -> dict[str, Tensor]:
    """Gradients of u, delta (after softplus), A, B and C, in the layout of `_Operands`."""
    step = x.chunks.inside(x.step)
    grads = {
        "A": torch.empty_like(x.A),
        "B": torch.empty_like(x.B),
        "C": torch.empty_like(x.C),
        "delta": torch.zeros_like(grad),
        "step_u": torch.zeros_like(grad),
    }
    step_u = step * x.u
    for states in x.blocks():
        _add_gradients(grads, x, grad, step_u, states)
    of_step_u = grads.pop("step_u")
    grads["delta"].addcmul_(of_step_u, x.u)
    grads["u"] = of_step_u.mul_(step)
    if D is not None:
        grads["u"].addcmul_(grad, D.to(grad.dtype))
    return grads


def _add_gradients(grads: dict[str, Tensor], x: _Operands, grad: Tensor, step_u: Tensor, states: slice) -> None:
    """What a block of states gives to the gradients; their own is a scan the other way."""
    chunks, step, A = x.chunks, x.chunks.inside(x.step), x.A[states]
    decay, h = x.states(states)
    g = chunks.buffer(x.u, *A.shape)
    torch.mul(x.grouped(grad).unsqueeze(2), x.C[:, :, states, :, None], out=x.grouped(chunks.inside(g)))
    passed = x.passed(chunks.next_chunks(x.step), A)
    _scan_(chunks.next_chunks(decay), chunks.chunks(g), passed, not chunks.reverse)
    for i, n in enumerate(range(states.start, states.stop)):
        h_n, g_n = chunks.inside(h)[:, :, i], chunks.inside(g)[:, :, i]
        grads["C"][:, :, n] = x.grouped(h_n * grad).sum(-1)
        grads["B"][:, :, n] = x.grouped(g_n * step_u).sum(-1)
        x.grouped(grads["step_u"]).addcmul_(x.grouped(g_n), x.B[:, :, n, :, None])
        of_power = chunks.inside(decay)[:, :, i].mul_(g_n).mul_(chunks.previous(h)[:, :, i])
        grads["delta"].addcmul_(of_power, x.A[n])
        grads["A"][n] = of_power.mul_(step).sum((0, 1))


def _scan_(decay: Tensor, values: Tensor, passed: Tensor | None, reverse: bool) -> None:
    """values[t] <- h[t] = decay[t] h[t-1] + values[t], in place.

    Args:
        decay, values: (B, count, size, N, D).
        passed: (B, count, N, D), the product of each chunk's decays; None with one chunk.
        reverse: from the last position to the first.
    """
    steps = list(zip(decay.unbind(2), values.unbind(2), strict=True))
    if reverse:
        steps.reverse()
    state: Tensor | None = None
    if passed is not None:
        state = _starts(steps, passed, reverse)
    for a, b in steps:
        if state is not None:
            b.addcmul_(a, state)
        state = b


def _starts(steps: list[tuple[Tensor, Tensor]], passed: Tensor, reverse: bool) -> Tensor:
    """The state that enters each chunk, (B, count, N, D)."""
    batch, count, *inner = passed.shape
    carried = passed.new_empty(batch, count + 1, *inner)  # before the first chunk, then behind each
    first, behind, into = (count, carried[:, :-1], carried[:, 1:]) if reverse else (0, carried[:, 1:], carried[:, :-1])
    carried[:, first].zero_()
    behind.copy_(steps[0][1])
    for a, b in steps[1:]:
        torch.addcmul(b, a, behind, out=behind)
    order = reversed(range(count)) if reverse else range(count)
    for i in order:
        behind[:, i].addcmul_(passed[:, i], into[:, i])
    return into
