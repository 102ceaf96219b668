"""The detours of `blockforge.kernels.cpu`: each computes what torch's own words for it say."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import blockforge
from blockforge.kernels import cpu
from blockforge.kernels.cpu import torch_impl

BLOCKS = Path(blockforge.__file__).parent / "blocks"


@pytest.mark.parametrize("name", cpu.__all__)
def test_a_detour_and_torchs_words_have_one_signature(name: str) -> None:
    detour, plain = (inspect.signature(getattr(module, name)) for module in (cpu, torch_impl))
    assert list(detour.parameters) == list(plain.parameters)


def test_blocks_reach_the_fence_through_its_front() -> None:
    """`primitives` asks what convolutions hold; all else is a detour, so that whoever replaces those has all."""
    for file in sorted(BLOCKS.rglob("*.py")):
        imported = [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.ImportFrom)]
        inside = {str(n.module) for n in imported if str(n.module).startswith("blockforge.kernels.cpu")}
        allowed = {"blockforge.kernels.cpu.memory"} if file.name == "primitives.py" else {"blockforge.kernels.cpu"}
        assert inside <= allowed, file


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "groups"),
    [
        ((3, 3), (1, 1), (1, 1), 1),
        ((3, 3), (2, 2), (1, 1), 4),
        ((1, 1), (2, 2), (0, 0), 1),
        ((1, 1), (1, 1), (1, 1), 4),
    ],
)
def test_a_convolution(
    kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], groups: int, grad: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 6, 8).permute(0, 3, 1, 2)
    weight, bias = torch.randn(12, 8 // groups, *kernel_size), torch.randn(12)
    with torch.set_grad_enabled(grad):
        given = (x, weight, bias, stride, padding, groups, kernel_size)
        torch.testing.assert_close(cpu.conv2d(*given), torch_impl.conv2d(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_depthwise_convolution_and_its_input(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=6).to(dtype)
    x = torch.randn(2, 7, 9, 6, dtype=dtype).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(cpu.add_dwconv(conv, x), torch_impl.add_dwconv(conv, x))


@pytest.mark.parametrize("act", [nn.GELU(), nn.GELU("tanh"), nn.ReLU(), nn.SiLU(), nn.Sigmoid()])
def test_an_activation(act: nn.Module) -> None:
    x = torch.randn(3, 5)

    def both(own: bool) -> list[Tensor]:
        with torch.no_grad():
            return [module.activate(act, x.clone(), own) for module in (cpu, torch_impl)]

    for own in (False, True):
        torch.testing.assert_close(*both(own))


def test_a_leaf_is_untouched_as_it_was_made_alone() -> None:
    leaf = nn.Linear(2, 2)
    assert cpu.untouched(leaf, nn.Linear)
    assert not cpu.untouched(leaf, nn.Module)
    hook = leaf.register_forward_hook(lambda *_: None)
    assert not cpu.untouched(leaf, nn.Linear)
    hook.remove()
    leaf.forward = lambda x: x  # type: ignore[method-assign]
    assert not cpu.untouched(leaf, nn.Linear)
