"""A depth-wise convolution and its gradients against its definition."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from duality import assert_close, poisoned, results
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from blockforge.blocks.layers import DWConv
from blockforge.blocks.leaves import on_nchw
from blockforge.kernels import backend
from blockforge.kernels.dwconv import OPERATOR, dwconv, onednn_impl, torch_impl

BY_ONEDNN = partial(dwconv, backend="onednn")
DEFINITION = partial(dwconv, backend="reference")
OLD = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
"""torch's derivatives in forward mode use what torch advises against."""
SIDES = [(3, 3), (7, 7), (1, 7), (7, 3), (3, 5), (9, 9), (1, 1)]


def operands(*shape: int, sides: tuple[int, int] = (7, 7), bias: bool = True) -> tuple[Tensor, ...]:
    """x, weight and bias."""
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(shape, generator=generator), torch.randn(shape[-1], 1, *sides, generator=generator))
    given = made + ((torch.randn(shape[-1], generator=generator),) if bias else ())
    return tuple(t.requires_grad_() for t in given)


@pytest.mark.parametrize("backend", ["onednn", "torch"])
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 9, 7, 8), (1, 3, 5, 33), (3, 1, 6, 16), (2, 12, 1, 3)])
def test_equals_the_definition(shape: tuple[int, ...], sides: tuple[int, int], backend: str) -> None:
    for bias in (True, False):
        given = operands(*shape, sides=sides, bias=bias)
        with poisoned():
            found = results(partial(dwconv, backend=backend), given)
        assert_close(found, results(DEFINITION, given), 1e-5)


@pytest.mark.parametrize("sides", [(7, 7), (1, 7), (5, 9), (31, 31)])
@pytest.mark.parametrize("band", [1, 2 * 13 * 8, 5 * 13 * 8])
def test_some_rows_at_a_time(sides: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_impl, "BAND", band)
    given = operands(2, 11, 13, 8, sides=sides)
    with poisoned():
        found = results(BY_ONEDNN, given)
    assert_close(found, results(DEFINITION, given), 1e-5)


@pytest.mark.parametrize("sides", [(7, 7), (5, 9)])
def test_images_side_by_side(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands(7, 5, 6, 8, sides=sides)
    monkeypatch.setattr(onednn_impl, "BAND", 4 * 5 * 6 * 8)  # four, then the three that are left
    taken = []
    one = onednn_impl._as_one
    monkeypatch.setattr(onednn_impl, "_as_one", lambda x: taken.append(len(x)) or one(x))
    with poisoned():
        found = results(BY_ONEDNN, given)
    assert_close(found, results(DEFINITION, given), 1e-5)
    assert taken == [4, 4, 3, 3]


def test_the_definition_has_the_derivative_of_its_values() -> None:
    given = tuple(t.detach().double().requires_grad_() for t in operands(2, 4, 3, 2, sides=(3, 5)))
    assert torch.autograd.gradcheck(DEFINITION, given)


def test_wide_kernels_have_their_own_gradient_where_gradients_are_kept() -> None:
    for sides in SIDES:
        x, *others = operands(1, 5, 6, 4, sides=sides)
        own = "_Depthwise" in graph_of(dwconv(x, *others))
        assert own == (sides[1] > 3), sides
        with torch.no_grad():
            assert torch.equal(dwconv(x, *others), torch_impl.dwconv(x, *others))


def graph_of(y: Tensor) -> str:
    """The operators behind y."""
    names, left = "", [y.grad_fn]
    while left:
        node = left.pop()
        if node is not None:
            names += f" {node.name()}"
            left += [n for n, _ in node.next_functions]
    return names


def test_strided_inputs_give_contiguous_maps() -> None:
    whole = torch.randn(2, 10, 9, 24, generator=torch.Generator().manual_seed(0))
    _, weight, bias = operands(1, 1, 1, 8)
    for x in (whole[..., 8:16], whole[:, ::2, :, ::3], whole[..., :8].transpose(1, 2), whole[:, 0, :, :8, None].mT):
        given = (x.requires_grad_(), weight[: x.shape[-1]], bias[: x.shape[-1]])
        y = BY_ONEDNN(*given)
        assert y.is_contiguous()
        assert_close(results(BY_ONEDNN, given), results(DEFINITION, given), 1e-5)


def test_a_gradient_of_any_strides() -> None:
    found, wanted = operands(2, 6, 5, 4), operands(2, 6, 5, 4)
    BY_ONEDNN(*found).sum().backward()
    DEFINITION(*wanted).sum().backward()
    assert_close([t.grad for t in found], [t.grad for t in wanted], 1e-5)


def test_a_result_may_be_overwritten() -> None:
    given = operands(2, 9, 3, 4)
    assert_close(
        results(lambda *t: BY_ONEDNN(*t).relu_(), given), results(lambda *t: DEFINITION(*t).relu(), given), 1e-5
    )


def test_derivative_of_the_derivative() -> None:
    def second(run: partial[Tensor], given: tuple[Tensor, ...]) -> list[Tensor]:
        first = torch.autograd.grad(run(*given).square().sum(), given, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), given))

    given = operands(2, 6, 5, 4)
    assert_close(second(BY_ONEDNN, given), second(DEFINITION, given), 1e-5)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_operands_get_no_gradient(frozen: int) -> None:
    found, wanted = operands(2, 6, 5, 4), operands(2, 6, 5, 4)
    for given in (found, wanted):
        given[frozen].requires_grad_(False)
    BY_ONEDNN(*found).square().sum().backward()
    DEFINITION(*wanted).square().sum().backward()
    assert found[frozen].grad is None
    learnt = [i for i in range(3) if i != frozen]
    assert_close([found[i].grad for i in learnt], [wanted[i].grad for i in learnt], 1e-5)


def test_no_images() -> None:
    x, weight, bias = operands(0, 6, 5, 4)
    BY_ONEDNN(x, weight, bias).sum().backward()
    assert x.grad.shape == x.shape
    assert weight.grad.count_nonzero() == 0


def test_who_looks_into_it_sees_the_public_operators() -> None:
    x, weight, bias = operands(2, 6, 5, 4)
    with FlopCounterMode(display=False) as counter:
        y = dwconv(x, weight, bias)
    assert counter.get_total_flops() == 2 * y.numel() * 49
    assert "_Depthwise" not in graph_of(y)
    with torch.autocast("cpu", torch.bfloat16):
        assert dwconv(x, weight, bias).dtype == torch.bfloat16
    rows = torch.func.vmap(lambda image: dwconv(image[None], weight, bias)[0])(x)
    torch.testing.assert_close(rows, DEFINITION(x, weight, bias), rtol=1e-5, atol=1e-5)


@OLD
def test_forward_mode() -> None:
    x, weight, bias = (t.detach() for t in operands(2, 6, 5, 4))
    with forward_ad.dual_level():
        y = dwconv(forward_ad.make_dual(x, x), weight, bias)
        slope = forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(slope, DEFINITION(x, weight), rtol=1e-5, atol=1e-5)


@OLD
@pytest.mark.parametrize("grad", [True, False])
def test_captured_graphs_have_the_public_operators(grad: bool) -> None:
    x, weight, bias = operands(2, 9, 7, 4)
    layer = DWConv(4, 7)
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    given = x.detach().permute(0, 3, 1, 2)
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(layer, (given,))
        compiled = torch.compile(dwconv, fullgraph=True, backend="aot_eager")(x, weight, bias)
    traced = torch.jit.trace(layer, given, check_trace=False)
    calls = {str(n.target) for n in exported.graph.nodes if n.op == "call_function"}
    assert "aten.conv2d.default" in calls
    assert not any("blockforge" in call for call in calls)
    for found in (exported.module()(given).permute(0, 2, 3, 1), compiled, traced(given).permute(0, 2, 3, 1)):
        torch.testing.assert_close(found, DEFINITION(x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs(dtype: torch.dtype) -> None:
    x, weight, bias = (t.detach().to(dtype) for t in operands(2, 6, 5, 4))
    assert OPERATOR.choose(x, plain=True).backend == "torch"
    y = dwconv(x, weight, bias)
    assert y.dtype == dtype
    wanted = DEFINITION(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(y.double(), wanted, rtol=2e-2, atol=2e-2)


def test_a_whole_model_may_run_without_it() -> None:
    given = operands(1, 6, 5, 4)
    with backend("torch"):
        assert "_Depthwise" not in graph_of(dwconv(*given))


@pytest.mark.parametrize("kernel_size", [7, (7, 3), 1])
def test_layer_and_its_residual(kernel_size: int | tuple[int, int]) -> None:
    layer, x = DWConv(6, kernel_size), torch.randn(2, 5, 8, 6, generator=torch.Generator().manual_seed(0))
    wanted = DEFINITION(x, layer.weight, layer.bias)
    torch.testing.assert_close(on_nchw(layer, x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(on_nchw(layer.residual, x), x + wanted, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit() -> None:
    x, weight, bias = operands(2, 6, 5, 4)
    with pytest.raises(ValueError, match=r"x must be \(batch, height, width, channels\), not \(6, 5, 4\)"):
        dwconv(x[0], weight, bias)
    for wrong in (weight[:3], weight[..., :6], weight[:, :, 0], weight.expand(4, 2, 7, 7)):
        with pytest.raises(ValueError, match=r"weight must be \(4, 1, h, w\), h and w odd, not"):
            dwconv(x, wrong, bias)
    with pytest.raises(ValueError, match=r"bias must be \(4,\), not \(3,\)"):
        dwconv(x, weight, bias[:3])
