"""Operands of `ssd` and `nc_ssd`, and how close two results are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Operands = tuple[Tensor | None, ...]


def scan_operands(
    length: int, states: int = 6, width: int = 5, *, heads: int = 4, groups: int = 1, largest_step: float = 0.1
) -> Operands:
    """x, dt, A, B, C, D of two sequences, in float64."""
    tokens = _tokens(length, states, width, heads, groups)
    dt, A, D = torch.rand(2, length, heads) * largest_step, -torch.rand(heads) * 16, torch.randn(heads)
    x, B, C = tokens
    return tuple(t.double() for t in (x, dt, A, B, C, D))


def gathering_operands(
    length: int, states: int = 6, width: int = 5, *, heads: int = 4, groups: int = 1, weighted: bool = True
) -> Operands:
    """x, m, B, C, D of two sequences, in float64."""
    x, B, C = (t.double() for t in _tokens(length, states, width, heads, groups))
    m, D = torch.rand(2, length, heads).double(), torch.randn(heads).double()
    return x, m if weighted else None, B, C, D


def _tokens(length: int, states: int, width: int, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_BLHP, B_BLGN and C_BLGN."""
    torch.manual_seed(length)
    x, weights = torch.randn(2, length, heads, width), torch.randn(2, 2, length, groups, states)
    return x, weights[0], weights[1]


def to(operands: Operands, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Operands:
    """Leaves that require gradients; every map is a part of a larger one in memory, as the mixers cut them."""
    return tuple(t if t is None else _cut(t.detach().to(device, dtype)).requires_grad_() for t in operands)


def _cut(t: Tensor) -> Tensor:
    return torch.cat([t, t[..., :1]], dim=-1)[..., :-1] if t.ndim > 1 else t


def given(operands: Operands) -> list[Tensor]:
    return [t for t in operands if t is not None]


def rel(a: Tensor, b: Tensor) -> float:
    """Relative distance; where b is nothing in float32, as a decay over a huge step, the distance."""
    b = b.double().to(a.device)
    size = b.norm().item()
    return (a.double() - b).norm().item() / (size if size > torch.finfo(torch.float32).tiny else 1.0)


def results(run: Callable[..., Tensor], operands: Operands) -> list[Tensor]:
    """The output and the gradient of every operand."""
    y = run(*operands)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    found = torch.autograd.grad(y, given(operands), dy, allow_unused=True, materialize_grads=True)
    return [y.detach(), *found]


def assert_close(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> None:
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.isfinite().all(), f"result {i} is not finite"
        assert rel(a, b) < tolerance, f"result {i} is off by {rel(a, b):.1e}"


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote to is NaN inside."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)
