"""Channel attention in standard operators and compiled by numba against its definition, channel by channel."""

from __future__ import annotations

import pytest
import torch
from channel_maps import make, on, turned
from duality import assert_close, poisoned, results, to
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.blocks.aggregators.dmca import DMCA
from blockforge.blocks.base import Shape
from blockforge.kernels import KernelError
from blockforge.kernels import channel_attention as package
from blockforge.kernels.channel_attention import bench, channel_attention, numba_kernels
from blockforge.kernels.costs import costs_of
from blockforge.testing.figures import check_workspace
from blockforge.testing.measure import peak_bytes, runnable_backends

SIZES = [(1, 1, 1, 1), (2, 63, 3, 3), (63, 2, 5, 1), (197, 49, 12, 4), (25, 7, 66, 2), (50, 50, 130, 1)]
BACKENDS = [("torch", torch.float64, 1e-12), ("numba", torch.float32, 1e-5)]
EXACT = pytest.mark.parametrize(("backend", "dtype", "tolerance"), BACKENDS)


@EXACT
@pytest.mark.parametrize(("length", "reduced", "dim", "groups"), SIZES)
def test_equals_the_definition(
    backend: str, dtype: torch.dtype, tolerance: float, length: int, reduced: int, dim: int, groups: int
) -> None:
    operands = to(make(length, reduced, dim), dtype)
    wanted = results(on("reference", groups), to(operands))
    with poisoned():
        found = results(on(backend, groups), operands)
        with torch.no_grad():
            in_inference = on(backend, groups)(*operands)
    assert_close(found, wanted, tolerance)
    assert_close([in_inference], wanted[:1], tolerance)


def test_the_definition_by_hand() -> None:
    """Two channels, one position: all weights are what two scores give."""
    q, k, v = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[0.5, 3.0]]]), torch.tensor([[[1.0, 10.0]]])
    x = torch.tensor([[[7.0, 8.0]]])
    found = [(torch.tensor([0.5, 3.0]) * of).softmax(0) @ v[0, 0] for of in (2.0, -1.0)]
    y = channel_attention(x, q, k, v, 1, backend="reference")
    torch.testing.assert_close(y, torch.tensor([[[7.0, found[1], 8.0, 1.0, found[0], 10.0]]]))


@EXACT
def test_a_long_map(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    operands = to(make(3137, 5, 6), dtype)
    assert_close(results(on(backend, 2), operands), results(on("reference", 2), to(operands)), tolerance)


@EXACT
def test_any_memory_layout(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    operands = to(make(30, 9, 8), dtype)
    assert_close(results(on(backend, 2), turned(operands)), results(on(backend, 2), operands), tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    operands = to(make(197, 49, 12), dtype)
    found = results(on("torch", 4), operands)
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(on("reference", 4), to(operands)), tolerance)


@pytest.mark.parametrize("backend", ["torch", "numba", "reference"])
def test_a_map_of_another_type(backend: str) -> None:
    """As under autocast: what layers give is in half precision, the map is not."""
    x, *others = to(make(30, 9, 8), torch.float32)
    half = [t.detach().bfloat16() for t in others if t is not None]
    y = on(backend, 2)(x, *half)
    assert y.dtype == torch.float32
    assert_close([y], [on("reference", 2)(x.double(), *(t.double() for t in half))], 0.01)


def test_large_scores_lose_no_number() -> None:
    x, q, k, v = (t.float() for t in make(10, 4, 6) if t is not None)
    wanted = on("reference", 2)(x.double(), q.double() * 1e3, k.double() * 1e3, v.double())
    for backend in ("torch", "numba"):
        assert_close([on(backend, 2)(x, q * 1e3, k * 1e3, v)], [wanted], 1e-5)


def test_threads_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = [t.float() for t in make(900, 9, 80) if t is not None]
    wanted, ranges, run = on("numba", 4)(*operands), [], numba_kernels.forward
    monkeypatch.setattr(numba_kernels, "forward", lambda *a: (ranges.append(a[-5:-3]), run(*a)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(on("numba", 4)(*operands), wanted)
    finally:
        torch.set_num_threads(threads)
    assert sorted(ranges) == [(0, 38), (38, 76)]


@pytest.mark.parametrize("groups", [1, 2])
def test_derivative(groups: int) -> None:
    assert torch.autograd.gradcheck(on("torch", groups), to(make(5, 3, 4)), fast_mode=True)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_counter_sees_the_products(backend: str, recorded: bool) -> None:
    with torch.set_grad_enabled(recorded), FlopCounterMode(display=False) as counter:
        on(backend, 2)(*to(make(10, 7, 6), torch.float32))
    assert counter.get_total_flops() == 2 * (2 * (10 + 7) * 6 * 3)


@pytest.mark.parametrize("backend", runnable_backends())
def test_memory_is_what_is_declared(backend: str) -> None:
    """Of the operator, and of the block around it."""
    for length, reduced, dim, groups in ((64, 9, 12, 4), (9, 9, 96, 1), (9, 9, 96, 2)):
        operands = [t.float() for t in make(length, reduced, dim, 1) if t is not None]
        measured = peak_bytes(lambda o=operands, g=groups: on(backend, g)(*o)) // 4
        with costs_of(backend):
            assert measured == pytest.approx(package.workspace(length, reduced, dim, groups), rel=0.1)
    for reduction, groups in ((1, 4), (2, 4), (1, 1)):
        check_workspace(DMCA(reduction=reduction, groups=groups), Shape(14, 14, 24), (24,), 48)


class _Attention(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return channel_attention(*operands, groups=2)


def test_exported_graphs_have_standard_operators() -> None:
    operands = tuple(t.float() for t in make(37, 5, 6) if t is not None)
    exported = torch.export.export(_Attention(), operands)
    assert not any("blockforge" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*operands), on("torch", 2)(*operands))


@EXACT
def test_compiles_whole(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    operands, run = to(make(20, 5, 6), dtype), on(backend, 2)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(run, operands), tolerance)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.bfloat16, "bfloat16")])
def test_what_numba_refuses(dtype: torch.dtype, name: str) -> None:
    operands = to(make(3, 3, 2), dtype)
    with pytest.raises(KernelError, match=f"computes in float32, the tensors are {name}"):
        on("numba")(*operands)
    assert results(on(None), operands)[0].dtype == dtype


@pytest.mark.parametrize(
    ("at", "message"),
    [(0, "x must be"), (1, "q must be"), (2, r"k must be \(2, 3, 4\)"), (3, r"v must be \(2, 5, 4\)")],
)
def test_shapes_that_do_not_fit(at: int, message: str) -> None:
    operands = list(make(5, 3, 4))
    tensor = operands[at]
    assert tensor is not None
    for wrong in (tensor[:1, ..., None], tensor[:, :0]):
        operands[at] = wrong
        with pytest.raises(ValueError, match=message):
            channel_attention(*operands, groups=1)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_fit(groups: int) -> None:
    with pytest.raises(ValueError, match=f"4 channels cannot be split into {groups} groups"):
        channel_attention(*make(5, 3, 4), groups=groups)


def test_the_sizes_that_are_timed() -> None:
    case = bench.cases()[2]
    operands = case.make(torch.device("cpu"))
    torch.testing.assert_close(case.run(*operands), case.baseline(*operands), rtol=1e-4, atol=1e-4)
