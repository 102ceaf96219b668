"""The selective scan compiled by numba against the loop that defines it, in float64."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, library

from blockforge.kernels.selective_scan import reference, selective_scan, torch_impl

pytest.importorskip("numba")

from blockforge.kernels.cpu import jit
from blockforge.kernels.selective_scan import numba_impl

Operands = list[Tensor]
NAMES = ("y", "u", "delta", "A", "B", "C", "D", "delta_bias")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small work is shared out as well."""
    monkeypatch.setattr(jit, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def make(length: int, states: int, groups: int = 1, dim: int = 6, batch: int = 2, scale: float = 1.0) -> Operands:
    torch.manual_seed(length * 100 + states)
    u, delta = torch.randn(batch, length, dim).mT, torch.randn(batch, length, dim).mT * scale
    B, C = torch.randn(2, batch, groups, states, length)
    return [u, delta, -torch.rand(dim, states).exp(), B, C, torch.randn(dim), torch.randn(dim)]


def run(scan, operands: Operands, dtype: torch.dtype, **options: bool) -> Operands:  # type: ignore[no-untyped-def]
    """The output and every gradient."""
    given = [t.detach().to(dtype).requires_grad_() for t in operands]
    y = scan(*given[:6], delta_bias=given[6], **{"delta_softplus": True, **options})
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), given)]


def assert_close(ours: Operands, exact: Operands, limit: float) -> None:
    for name, a, b in zip(NAMES, ours, exact, strict=True):
        assert a.shape == b.shape, name
        assert a.isfinite().all(), name
        error = ((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item()
        assert error <= limit, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("length", "states", "groups", "dim"),
    [
        (1, 1, 1, 6),
        (2, 8, 2, 6),
        (63, 16, 1, 7),
        (63, 1, 3, 33),
        (197, 8, 1, 5),
        (63, 64, 2, 6),
        (40, 2, 1, 401),
        (21, 7, 1, 19),
    ],
)
def test_equals_the_loop(length: int, states: int, groups: int, dim: int, reverse: bool) -> None:
    operands = make(length, states, groups, dim)
    exact = run(reference.selective_scan, operands, torch.float64, reverse=reverse)
    assert_close(run(numba_impl.selective_scan, operands, torch.float32, reverse=reverse), exact, 2e-6)


@pytest.mark.parametrize("states", [1, 8])
def test_long_sequences(states: int) -> None:
    """The twin is the chunked scan in float64: autograd through so long a loop takes minutes."""
    operands = make(3137, states, dim=3, batch=1)
    exact = run(torch_impl.selective_scan, operands, torch.float64)
    assert_close(run(numba_impl.selective_scan, operands, torch.float32), exact, 5e-6)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("batch", "groups", "dim"), [(1, 1, 70), (1, 4, 8), (3, 1, 5), (2, 2, 66)])
def test_shared_between_threads(batch: int, groups: int, dim: int) -> None:
    operands = make(50, 3, groups, dim, batch)
    exact = run(reference.selective_scan, operands, torch.float64)
    ours = run(numba_impl.selective_scan, operands, torch.float32)
    assert_close(ours, exact, 2e-6)
    again = run(numba_impl.selective_scan, operands, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True)), "two runs differ"


@pytest.mark.parametrize("left_out", [{5}, {6}, {5, 6}])
@pytest.mark.parametrize("softplus", [True, False])
def test_optional_operands(left_out: set[int], softplus: bool) -> None:
    operands = make(29, 3)
    if not softplus:
        operands[1], operands[6] = operands[1].abs(), operands[6].abs()
    kept = [t for i, t in enumerate(operands) if i not in left_out]

    def call(scan, dtype: torch.dtype) -> Operands:  # type: ignore[no-untyped-def]
        given = [t.detach().to(dtype).requires_grad_() for t in kept]
        rest = iter(given[5:])
        D = None if 5 in left_out else next(rest)
        bias = None if 6 in left_out else next(rest)
        y = scan(*given[:5], D, delta_bias=bias, delta_softplus=softplus)
        return [y, *torch.autograd.grad(y.square().sum(), given)]

    ours, exact = call(numba_impl.selective_scan, torch.float32), call(reference.selective_scan, torch.float64)
    for a, b in zip(ours, exact, strict=True):
        assert (a - b).norm() <= 3e-6 * b.norm()


@pytest.mark.parametrize("scale", [300.0, 1e6])
def test_extreme_steps(scale: float) -> None:
    operands = make(197, 8, scale=scale)
    exact = run(reference.selective_scan, operands, torch.float64)
    assert_close(run(numba_impl.selective_scan, operands, torch.float32), exact, 1e-5)


def test_a_nan_is_not_hidden() -> None:
    operands = make(20, 2)
    operands[1][0, 3, 10] = math.nan
    y = numba_impl.selective_scan(*operands[:6], delta_bias=operands[6], delta_softplus=True)
    assert y[0, 3, 10:].isnan().all()
    assert y[0, 3, :10].isfinite().all()
    assert y[1].isfinite().all()


def test_any_memory_layout() -> None:
    operands = make(50, 3, groups=2)
    wide = torch.randn(2, 50, 13)
    wide[..., 3:9] = operands[0].mT
    expanded = torch.randn(6, 1).expand(6, 50)
    others = [wide[..., 3:9].mT, expanded.expand(2, 6, 50), *operands[2:]]
    others[3] = operands[3].permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    dense = [t.contiguous() for t in others]
    for a, b in zip(*(run(numba_impl.selective_scan, o, torch.float32) for o in (others, dense)), strict=True):
        assert torch.equal(a, b)


def test_operands_are_only_read() -> None:
    operands = make(40, 6, groups=2)
    before = [t.clone() for t in operands]
    run(numba_impl.selective_scan, operands, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(operands, before, strict=True))


def test_no_memory_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = make(63, 5)
    exact = run(reference.selective_scan, operands, torch.float64)
    monkeypatch.setattr(torch, "empty", lambda shape, **kwargs: torch.full(shape, math.nan, **kwargs))
    assert_close(run(numba_impl.selective_scan, operands, torch.float32), exact, 2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    operands = [t.to(dtype) for t in make(63, 4)]
    ours = run(numba_impl.selective_scan, operands, dtype)
    assert [t.dtype for t in ours] == [dtype] * 8
    exact = run(reference.selective_scan, operands, torch.float64)
    error = (ours[0].double() - exact[0]).norm() / exact[0].norm()
    assert error <= torch.finfo(dtype).eps
    for a, b in zip(ours[1:], exact[1:], strict=True):
        assert (a.double() - b).norm() <= 4 * torch.finfo(dtype).eps * b.norm()


def test_compiled_graphs_keep_the_kernel() -> None:
    def scan(*given: Tensor) -> Tensor:
        return selective_scan(*given[:6], delta_bias=given[6], delta_softplus=True, backend="numba")

    operands = [t.requires_grad_() for t in make(37, 3)]
    graphs = []

    def see(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    y = torch.compile(scan, fullgraph=True, backend=see)(*operands)
    assert "selective_scan_numba" in graphs[0]
    assert torch.equal(y, scan(*operands))
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")(*operands)
    ours, theirs = (torch.autograd.grad(t.square().sum(), operands) for t in (compiled, y))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_without_gradients_it_is_the_same() -> None:
    """Another operator runs then, in compiled graphs too."""
    operands = make(23, 5)
    kept = run(numba_impl.selective_scan, operands, torch.float32)[0]

    def scan(*given: Tensor) -> Tensor:
        return numba_impl.selective_scan(*given[:6], delta_bias=given[6], delta_softplus=True)

    assert torch.equal(scan(*operands), kept)
    assert torch.equal(torch.compile(scan, fullgraph=True, backend="aot_eager")(*operands), kept)
    with torch.no_grad():
        y = scan(*(t.requires_grad_() for t in operands))
    assert torch.equal(y, kept)
    assert not y.requires_grad


def test_operators_keep_the_rules_of_torch() -> None:
    """Schema, fake implementation, autograd registration and AOT dispatch."""
    operands = [t.requires_grad_() for t in make(9, 2)]
    library.opcheck(torch.ops.blockforge.selective_scan_numba.default, (*operands, True, False))
    library.opcheck(torch.ops.blockforge.selective_scan_numba.default, (*operands[:5], None, None, True, True))
    plain = [t.detach() for t in operands]
    library.opcheck(torch.ops.blockforge.selective_scan_numba_no_grad.default, (*plain, True, False))
    dy = torch.randn_like(plain[0])
    library.opcheck(torch.ops.blockforge.selective_scan_numba_backward_no_grad.default, (dy, *plain, True, False))


def test_calls_from_several_threads() -> None:
    operands = make(200, 2, dim=64)
    expected = numba_impl.selective_scan(*operands[:5])
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: numba_impl.selective_scan(*operands[:5]), range(8)):
            assert torch.equal(y, expected)


@pytest.mark.parametrize("value", [-1e30, -200.0, -87.2, -1.0, -1e-6, 0.0, 1e-6, 1.0, 20.0, 88.0])
def test_fast_functions(value: float) -> None:
    x = torch.tensor(value)
    e = jit.exp(-x.abs().numpy()[()])
    assert jit.exp(x.numpy()[()]) == pytest.approx(math.exp(value), rel=3e-7)
    assert e == pytest.approx(math.exp(-abs(value)), rel=3e-7)
    assert jit.softplus(x.numpy()[()], e) == pytest.approx(torch.nn.functional.softplus(x.double()).item(), rel=3e-7)
    assert jit.sigmoid(x.numpy()[()], e) == pytest.approx(torch.sigmoid(x.double()).item(), rel=3e-7, abs=1e-38)


def test_compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = jit.numba.njit

    def njit(*, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file '<string>'")
        return compile_(**options)

    monkeypatch.setattr(jit.numba, "njit", njit)
    assert jit.jit()(lambda x: x + x)(2) == 4
