"""The scan of a map in several directions, every backend against the definition in float64."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.costs import costs_of
from blockforge.kernels.cross_scan import DIRECTIONS, Direction, cross_scan, workspace
from blockforge.kernels.cross_scan.directions import Order
from blockforge.testing import peak_bytes
from blockforge.torch_private import TorchDispatchMode

Operands = list[Tensor]
BACKENDS = ["torch", pytest.param("numba", marks=pytest.mark.skipif(not find_spec("numba"), reason="needs numba"))]
LIMITS = {"torch": 2e-6, "numba": 2e-6}
NAMES = ("y", "x", "dt", "B", "C", "dt_weight", "A", "D", "dt_bias")


def make(directions: int = 4, size: tuple[int, int] = (5, 7), dim: int = 6, states: int = 3, rank: int = 2) -> Operands:
    torch.manual_seed(dim * 10 + states)
    made = torch.randn(2, *size, directions, rank + 2 * states).split([rank, states, states], dim=-1)
    A = -torch.rand(directions, dim, states).exp()
    D, bias = torch.randn(2, directions, dim)
    return [torch.randn(2, *size, dim), *made, torch.randn(directions, dim, rank), A, D, bias]


def run(
    operands: Operands, backend: str, dtype: torch.dtype, directions: tuple[Direction, ...], window: int | None = None
) -> Operands:
    """The output and every gradient."""
    given = [t.to(dtype).detach().requires_grad_() for t in operands]
    y = cross_scan(*given[:7], dt_bias=given[7], directions=directions, window=window, backend=backend)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), given)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(
    "directions",
    [DIRECTIONS, ("rows",), ("rows", "rows_back"), ("columns_back", "rows", "columns_back")],
    ids="+".join,
)
def test_equals_the_definition(directions: tuple[Direction, ...], window: int | None, backend: str) -> None:
    operands = make(len(directions))
    exact = run(operands, "reference", torch.float64, directions, window)
    ours = run(operands, backend, torch.float32, directions, window)
    for name, a, b in zip(NAMES, ours, exact, strict=True):
        assert (a - b).norm() <= LIMITS[backend] * b.norm(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("size", "dim", "states", "rank"), [((1, 1), 3, 1, 1), ((1, 9), 5, 2, 3), ((13, 3), 33, 16, 4), ((4, 4), 201, 1, 2)]
)
def test_odd_sizes(size: tuple[int, int], dim: int, states: int, rank: int, backend: str) -> None:
    operands = make(4, size, dim, states, rank)
    exact = run(operands, "reference", torch.float64, DIRECTIONS)
    for name, a, b in zip(NAMES, run(operands, backend, torch.float32, DIRECTIONS), exact, strict=True):
        assert (a - b).norm() <= LIMITS[backend] * b.norm(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_and_autocast(backend: str) -> None:
    operands = [t.bfloat16() for t in make()]
    exact = cross_scan(*(t.double() for t in operands[:7]), dt_bias=operands[7].double(), directions=DIRECTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        y = cross_scan(*operands[:7], dt_bias=operands[7], directions=DIRECTIONS, backend=backend)
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).norm() <= 2e-2 * exact.norm()


def test_gradcheck() -> None:
    given = [t.double().requires_grad_() for t in make(4, (2, 3), 2, 2, 1)]

    def scan(*t: Tensor) -> Tensor:
        return cross_scan(*t[:7], dt_bias=t[7], directions=DIRECTIONS, window=2)

    assert torch.autograd.gradcheck(scan, given, fast_mode=True)


def test_orders() -> None:
    assert Order(2, 3, "rows", 0).array().tolist() == [0, 1, 2, 3, 4, 5]
    assert Order(2, 3, "rows_back", 0).array().tolist() == [5, 4, 3, 2, 1, 0]
    assert Order(2, 3, "columns", 0).array().tolist() == [0, 3, 1, 4, 2, 5]
    assert Order(2, 3, "columns_back", 0).array().tolist() == [5, 2, 4, 1, 3, 0]
    assert Order(3, 3, "rows", 2).array().tolist() == [0, 1, 3, 4, 2, 5, 6, 7, 8]
    assert Order(3, 3, "columns", 2).array().tolist() == [0, 3, 1, 4, 6, 7, 2, 5, 8]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_graph_is_whole(backend: str) -> None:
    def scan(*t: Tensor) -> Tensor:
        return cross_scan(*t[:7], dt_bias=t[7], directions=DIRECTIONS, backend=backend)

    operands = [t.requires_grad_() for t in make(4, (3, 4))]
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*operands), scan(*operands)
    torch.testing.assert_close(y, expected)
    for a, b in zip(*(torch.autograd.grad(t.square().sum(), operands) for t in (y, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_an_exported_graph_holds_standard_operators() -> None:
    class Scan(torch.nn.Module):
        def forward(self, *t: Tensor) -> Tensor:
            return cross_scan(*t[:7], dt_bias=t[7], directions=DIRECTIONS)

    operands = tuple(make(4, (3, 4)))
    program = torch.export.export(Scan(), operands)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("blockforge" in name for name in called), called
    torch.testing.assert_close(program.module()(*operands), Scan()(*operands))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_counter_sees_the_steps_alone(backend: str) -> None:
    """The scan has a closed form; the linear layer that makes the steps is counted."""
    operands = make(4, (5, 7), dim=6, rank=2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cross_scan(*operands[:7], dt_bias=operands[7], directions=DIRECTIONS, backend=backend)
    assert counter.get_total_flops() == 2 * 2 * 35 * 4 * 6 * 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("directions", [DIRECTIONS, ("columns",), ("rows", "rows_back")], ids="+".join)
@pytest.mark.parametrize("window", [None, 4])
def test_workspace_is_what_a_scan_takes(directions: tuple[Direction, ...], window: int | None, backend: str) -> None:
    one = make(len(directions), (14, 14), 48, 4, 3)
    used = []
    for batch in (2, 4):
        given = [t.repeat(batch // 2, *[1] * (t.ndim - 1)) for t in one[:4]]
        scan = partial(cross_scan, *given, *one[4:7], dt_bias=one[7], directions=directions, window=window)
        used.append(peak_bytes(partial(scan, backend=backend)))
    with costs_of(backend):
        predicted = workspace(196, 48, 4, 3, directions, window) * 4
    assert predicted == pytest.approx((used[1] - used[0]) / 2, rel=0.05)


def test_shapes_are_checked() -> None:
    x, dt, B, C, weight, A, D, bias = make()
    with pytest.raises(ValueError, match=r"B must be \(2, 5, 7, 4, 3\), not \(2, 5, 7, 4, 2\)"):
        cross_scan(x, dt, B[..., :2], C, weight, A, directions=DIRECTIONS)
    with pytest.raises(ValueError, match=r"A must be \(3, 6, 3\), not \(4, 6, 3\)"):
        cross_scan(x, dt, B, C, weight, A, directions=DIRECTIONS[:3])
    with pytest.raises(ValueError, match="directions must be some of rows, columns"):
        cross_scan(x, dt, B, C, weight, A, directions=("diagonal",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be"):
        cross_scan(x[0], dt, B, C, weight, A, directions=DIRECTIONS)
    with pytest.raises(ValueError, match=r"dt_bias must be \(4, 6\), not \(4, 5\)"):
        cross_scan(x, dt, B, C, weight, A, D, dt_bias=bias[:, :5], directions=DIRECTIONS)


class Seen(TorchDispatchMode):
    """Notes the names of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not find_spec("numba"), reason="needs numba")
def test_operators_of_torch_stand_for_directions_where_somebody_looks() -> None:
    """A mode and a profiler see them, and what they compute is what the plain calls do."""
    operands, wanted = make(), {"blockforge::cross_scan_numba_into", "blockforge::cross_scan_numba_back"}
    unseen = run(operands, "numba", torch.float32, DIRECTIONS)
    with profile(activities=[ProfilerActivity.CPU]) as records:
        profiled = run(operands, "numba", torch.float32, DIRECTIONS)
    with Seen() as seen:
        watched = run(operands, "numba", torch.float32, DIRECTIONS)
    assert wanted <= {event.name for event in records.events() or ()}
    assert wanted <= seen.names
    for name, a, b, c in zip(NAMES, unseen, profiled, watched, strict=True):
        assert a.equal(b), name
        assert a.equal(c), name


@pytest.mark.skipif(not find_spec("numba"), reason="needs numba")
def test_no_operator_of_torch_stands_for_a_direction_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On small maps torch's dispatcher takes longer than the scan of a direction."""
    from blockforge.kernels.cross_scan.numba_impl import cross_scan as of_numba

    def called(*given: Any) -> None:
        raise AssertionError("an operator of torch was called")

    monkeypatch.setattr(of_numba, "into", called)
    monkeypatch.setattr(of_numba, "back", called)
    run(make(), "numba", torch.float32, DIRECTIONS)
