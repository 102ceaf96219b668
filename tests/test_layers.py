"""Layers of which one operator is run in several ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Shape
from blockforge.blocks.layers import Conv2d, DWConv
from blockforge.blocks.norms.rms_norm import RMSNorm
from blockforge.compiler.lowering.modules import Branch, image_map
from blockforge.kernels.cpu import channel_blocks


def run(conv: Conv2d, x: Tensor, plain: bool) -> list[Tensor]:
    """The result and all gradients, of the layer or of torch's operator."""
    if plain:
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    else:
        y = conv(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 2), (1, (1, 5))])
def test_a_kernel_that_outweighs_its_map_runs_by_channel_blocks(
    stride: int, kernel: int | tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_blocks, "BLOCK", 5000)
    monkeypatch.setattr(channel_blocks, "LARGE", 0)
    torch.manual_seed(0)
    conv = Conv2d(24, 100, kernel, stride=stride, bias=bias)
    x = torch.randn(1, 24, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    assert channel_blocks.outweighs(conv.weight, x)
    for ours, torchs in zip(run(conv, x, plain=False), run(conv, x, plain=True), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", [1, 3])
def test_of_a_map_of_one_channel_comes_a_channels_last_one(kernel: int) -> None:
    """Its own layout is ambiguous: behind a batch norm it has the strides of NCHW."""
    conv, norm = Conv2d(1, 16, kernel, stride=2), nn.BatchNorm2d(1).eval()
    with torch.inference_mode():
        x = norm(torch.randn(2, 9, 7, 1).permute(0, 3, 1, 2))
        y = conv(x)
        torch.testing.assert_close(y, F.conv2d(x, conv.weight, conv.bias, stride=2, padding=kernel // 2))
    assert y.permute(0, 2, 3, 1).is_contiguous()


def test_frozen_operands_and_the_derivative_of_the_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_blocks, "LARGE", 0)
    monkeypatch.setattr(channel_blocks, "BLOCK", 5000)
    conv, x = Conv2d(8, 40, 3), torch.randn(1, 8, 3, 3, requires_grad=True)
    conv.weight.requires_grad_(False)
    conv(x).sum().backward()
    assert conv.weight.grad is None
    conv.weight.requires_grad_(True)

    def of_gradients(outweighs: int) -> tuple[Tensor, ...]:
        monkeypatch.setattr(channel_blocks, "OUTWEIGHS", outweighs)
        dx, dw = torch.autograd.grad(conv(x).square().sum(), [x, conv.weight], create_graph=True)
        return torch.autograd.grad(dx.square().sum() + dw.square().sum(), [x, conv.weight])

    for ours, torchs in zip(of_gradients(2), of_gradients(1000), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-3, atol=1e-2)


def test_a_small_kernel_does_not() -> None:
    assert not channel_blocks.outweighs(Conv2d(8, 8, 3).weight, torch.randn(1, 14, 14, 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_copied_in_inference_alone(channels: int) -> None:
    image = torch.randn(2, channels, 6, 5)
    kept = image_map(image, channels)
    with torch.no_grad():
        copied = image_map(image, channels)
    assert torch.equal(kept, image.permute(0, 2, 3, 1))
    assert torch.equal(copied, kept)
    assert kept.data_ptr() == image.data_ptr()
    assert copied.is_contiguous()


@pytest.mark.parametrize("aggregated", [False, True], ids=["at once", "fed"])
def test_what_stands_around_a_block_is_called(aggregated: bool) -> None:
    """Each alone, though nothing may have to be computed there: a hook fires, and what is put there is used."""
    branch = Branch(DWConv(4, 3), None, 4, drop_path=0.0)
    x = torch.randn(2, 5, 6, 4)
    given = (x, torch.randn(2, 5, 6, 4)) if aggregated else (x,)
    before = branch(*given)
    for name in ("norm", "drop_path"):
        fired: list[str] = []
        hook = branch.get_submodule(name).register_forward_hook(lambda _m, _x, _y, fired=fired: fired.append("yes"))  # type: ignore[misc]
        torch.testing.assert_close(branch(*given), before)
        assert fired, name
        hook.remove()
        branch.set_submodule(name, nn.Hardtanh(-0.1, 0.1))
        assert not torch.allclose(branch(*given), before), name
        branch.set_submodule(name, nn.Identity())


def test_root_mean_square_in_inference_is_torchs() -> None:
    norm, x = RMSNorm(eps=1e-3).build(Shape(5, 7, 48)), torch.randn(2, 5, 7, 48)
    with torch.no_grad():
        norm.weight.uniform_()
        torch.testing.assert_close(norm(x), F.rms_norm(x, (48,), norm.weight, 1e-3))
