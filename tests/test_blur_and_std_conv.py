"""Blurs and standardised weights against torch's own words."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from test_parts import MAP, made, ran

from blockforge.blocks.base import Shape
from blockforge.errors import OpError


@pytest.mark.parametrize(
    ("kernel", "stride", "line"), [(3, 2, [1, 2, 1]), (4, 2, [1, 3, 3, 1]), (5, 1, [1, 4, 6, 4, 1])]
)
def test_a_blur_is_a_binomial_of_a_mirrored_map(kernel: int, stride: int, line: list[float]) -> None:
    x, y, module = ran(made("blur_pool", kernel_size=kernel, stride=stride))
    pad, sides = (stride + kernel - 2) // 2, torch.tensor(line, dtype=torch.float32)
    weight = (torch.outer(sides, sides) / sides.sum() ** 2).expand(12, 1, -1, -1)
    wanted = F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), weight, stride=stride, groups=12)
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-6)
    assert not list(module.parameters())
    assert not module.state_dict()
    with pytest.raises(OpError, match="a map of 2x5 has no 2 positions to mirror at a side"):
        made("blur_pool", kernel_size=5, stride=1).check(Shape(2, 5, 12), None)


@pytest.mark.parametrize("gain", [True, False])
def test_standardised_weights(gain: bool) -> None:
    x, y, module = ran(made("std_conv", kernel_size=3, stride=2, groups=2, gain=gain, gamma=1.7), dim=8)
    weight = next(p for n, p in module.named_parameters() if n.endswith("weight")).detach()
    bias = next(p for n, p in module.named_parameters() if n.endswith("bias"))
    wanted = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.var((1, 2, 3), False, keepdim=True).sqrt() * 1.7
    wanted = wanted / math.sqrt(weight[0].numel()) if gain else wanted
    torch.testing.assert_close(y, F.conv2d(x, wanted, bias, 2, 1, groups=2), rtol=1e-3, atol=1e-4)
    assert sum("gain" in n for n, _ in module.named_parameters()) == gain
    with pytest.raises(OpError, match="weights of one number for each channel have no variance"):
        made("std_conv", group_width=1).check(MAP, None)
