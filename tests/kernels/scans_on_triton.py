"""Run by test_triton_scan.py: `scans_on_triton.py CASE DEVICE`."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from blockforge.kernels.cross_scan import DIRECTIONS, cross_scan
from blockforge.kernels.selective_scan import selective_scan, triton_impl

DEVICE = sys.argv[2]
Operands = list[Tensor]


def check(ours: Operands, exact: Operands, limit: float) -> None:
    for i, (a, b) in enumerate(zip(ours, exact, strict=True)):
        assert a.shape == b.shape, i
        assert a.isfinite().all(), i
        error = ((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item()
        assert error <= limit, f"output {i} is off by {error:.1e}"


def scan(operands: Operands, backend: str, dtype: torch.dtype, **options: bool) -> Operands:
    """The output and every gradient."""
    given = [t.detach().to(DEVICE, dtype).requires_grad_() for t in operands]
    bias = given[6] if len(given) > 6 else None
    y = selective_scan(*given[:6], delta_bias=bias, backend=backend, **{"delta_softplus": True, **options})
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=DEVICE).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), given)]


def make(length: int, states: int, groups: int, dim: int, batch: int = 1, scale: float = 1.0) -> Operands:
    torch.manual_seed(length)
    u, delta = torch.randn(batch, length, dim).mT, torch.randn(batch, length, dim).mT * scale
    B, C = torch.randn(2, batch, groups, states, length)
    return [u, delta, -torch.rand(dim, states).exp(), B, C, torch.randn(dim), torch.randn(dim)]


def forward_and_backward() -> None:
    for length, states, groups, dim, batch, reverse in (
        (1, 1, 1, 3, 2, False),
        (2, 2, 2, 4, 1, True),
        (19, 2, 2, 10, 1, False),
        (21, 1, 1, 5, 2, True),
    ):
        operands = make(length, states, groups, dim, batch)
        exact = scan(operands, "reference", torch.float64, reverse=reverse)
        check(scan(operands, "triton", torch.float32, reverse=reverse), exact, 3e-6)
    extreme = make(19, 1, 1, 3, scale=300.0)
    check(scan(extreme, "triton", torch.float32), scan(extreme, "reference", torch.float64), 1e-5)
    plain = [*make(9, 1, 1, 3)[:6]]
    plain[1] = plain[1].abs()
    exact = scan(plain, "reference", torch.float64, delta_softplus=False)
    check(scan(plain, "triton", torch.float32, delta_softplus=False), exact, 3e-6)
    twice = [scan(plain, "triton", torch.float32) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*twice, strict=True)), "two runs differ"


def half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        operands = [t.to(dtype) for t in make(11, 1, 1, 4)]
        exact = scan(operands, "reference", torch.float64)
        check(scan(operands, "triton", dtype), exact, 4 * torch.finfo(dtype).eps)


def maps() -> None:
    torch.manual_seed(0)
    dim, states, rank = 4, 1, 2
    made = torch.randn(1, 3, 5, 4, rank + 2 * states).split([rank, states, states], dim=-1)
    A, (D, bias) = -torch.rand(4, dim, states).exp(), torch.randn(2, 4, dim)
    operands = [torch.randn(1, 3, 5, dim), *made, torch.randn(4, dim, rank), A, D, bias]

    def run(backend: str, dtype: torch.dtype, window: int | None) -> Operands:
        given = [t.detach().to(DEVICE, dtype).requires_grad_() for t in operands]
        y = cross_scan(*given[:7], dt_bias=given[7], directions=DIRECTIONS, window=window, backend=backend)
        return [y, *torch.autograd.grad(y.square().sum(), given)]

    for window in (None, 2):
        check(run("triton", torch.float32, window), run("reference", torch.float64, window), 5e-6)


def large() -> None:
    """On a device alone: many chunks, blocks and states."""
    for length, states, groups, dim in ((3137, 1, 4, 768), (197, 16, 1, 161), (196, 8, 1, 160), (63, 64, 1, 33)):
        operands = make(length, states, groups, dim, batch=2)
        exact = scan(operands, "torch", torch.float64)
        check(scan(operands, "triton", torch.float32), exact, 1e-5)


def poisoned(make):  # type: ignore[no-untyped-def]
    """Fresh memory full of NaN."""

    def fill(*args: object, **options: object) -> Tensor:
        fresh: Tensor = make(*args, **options)
        return fresh.fill_(math.nan) if fresh.is_floating_point() else fresh

    return fill


if __name__ == "__main__":
    if DEVICE == "cpu":  # small tiles: the interpreter takes its time for each element
        triton_impl._CHUNK, triton_impl._WIDTH, triton_impl._BLOCK = 8, 4, 16
        torch.empty = poisoned(torch.empty)
        torch.Tensor.new_empty = poisoned(torch.Tensor.new_empty)  # type: ignore[method-assign]
    {f.__name__: f for f in (forward_and_backward, half_precision, maps, large)}[sys.argv[1]]()
