"""Multi-head mixed convolution in standard operators against its definition, tap by tap."""

from __future__ import annotations

import pytest
import torch
from duality import assert_close, poisoned, results, to
from mixed_conv_cases import make, on
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.mixed_conv import mixed_conv


@pytest.mark.parametrize("expand", [None, 1, 2])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 1), (1, 1, 63), (2, 7, 12)])
def test_equals_the_definition(size: tuple[int, int, int], expand: int | None) -> None:
    operands = to(make(size, 3, (3, 5, 7, 9), expand))
    with poisoned():
        found = results(on("torch"), operands)
    assert_close(found, results(on("reference"), operands), 1e-12)


@pytest.mark.parametrize(("width", "sides"), [(1, (1,)), (17, (3, 3, 3)), (2, (5, 1)), (1, (3,) * 16)])
def test_any_heads(width: int, sides: tuple[int, ...]) -> None:
    operands = to(make((2, 4, 5), width, sides))
    assert_close(results(on("torch"), operands), results(on("reference"), operands), 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 0.003)]
)
@pytest.mark.parametrize("expand", [None, 2])
def test_lower_precision(dtype: torch.dtype, tolerance: float, expand: int | None) -> None:
    operands = to(make((2, 14, 14), 16, (3, 5, 7, 9), expand), dtype)
    found = results(on("torch"), operands)
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(on("reference"), to(operands)), tolerance)


@pytest.mark.parametrize("expand", [None, 2])
def test_derivative(expand: int | None) -> None:
    operands = to(make((1, 3, 4), 2, expand=expand))
    given = [t for t in operands if t is not None]
    rest = operands[len(given) :]
    assert torch.autograd.gradcheck(lambda *t: on("torch")(*t, *rest), given, fast_mode=True)


def test_any_memory_layout() -> None:
    x, *others = to(make((2, 5, 6), 4))
    turned = x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert_close(results(on("torch"), (turned, *others)), results(on("torch"), (x, *others)), 1e-12)


def test_a_counter_sees_every_convolution() -> None:
    operands = to(make((2, 4, 5), 3, (3, 5), 2), torch.float32)
    with FlopCounterMode(display=False) as counter:
        on(None)(*operands)
    assert counter.get_total_flops() == 2 * (2 * 4 * 5) * (3 * (9 + 25) + 3 * 2 * 2 * 2)


class _Convolution(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return on(None)(*operands)


@pytest.mark.parametrize("expand", [None, 2])
def test_captured_graphs_give_the_same(expand: int | None) -> None:
    operands = make((2, 5, 6), 4, expand=expand)
    exported = torch.export.export(_Convolution(), operands)
    assert not any("blockforge" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*operands), on("torch")(*operands))
    torch.compiler.reset()  # or sizes that another test had otherwise would become variables
    compiled = torch.compile(on("torch"), fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, to(operands)), results(on("torch"), to(operands)), 1e-12)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, "x must be"),
        (1, "each of weights must be"),
        (3, "biases must be"),
        (5, "mix's weight must be"),
        (6, "mix's bias must be"),
    ],
)
def test_shapes_that_do_not_fit(at: int, message: str) -> None:
    operands = list(make((1, 4, 4), 3))
    wrong = operands[at]
    assert wrong is not None
    operands[at] = wrong[..., None]
    with pytest.raises(ValueError, match=message):
        on(None)(*operands)


def test_heads_that_do_not_fit() -> None:
    x, kernel, bias = torch.zeros(1, 4, 4, 7), torch.zeros(3, 1, 3, 3), torch.zeros(3)
    with pytest.raises(ValueError, match="the heads divide 7 channels, not 2"):
        mixed_conv(x, [kernel] * 2, [bias] * 2)
    with pytest.raises(ValueError, match="the heads divide 7 channels, not 0"):
        mixed_conv(x, [], [])
    with pytest.raises(ValueError, match=r"k odd, not \(3, 1, 2, 2\)"):
        mixed_conv(x[..., :6], [kernel, kernel[..., :2, :2]], [bias] * 2)
