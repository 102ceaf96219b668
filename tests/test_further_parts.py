"""Parts that came later, against torch's own words: blurs, standardised weights, lengths of 1, zeros around a map."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from test_attend import ALIKE, each, make, run
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


def test_values_of_length_1() -> None:
    for params, axes in (({}, 1), ({"axis": "positions"}, (2, 3))):
        x, y, _ = ran(made("l2_norm", **params))
        torch.testing.assert_close(y, x / x.square().sum(axes, keepdim=True).sqrt())


def test_zeros_around_a_map() -> None:
    x, y, _ = ran(made("pad", bottom=1, right=2, left=3))
    assert torch.equal(y, F.pad(x, (3, 2, 0, 1)))
    x, y, _ = ran(made("pad"))
    assert torch.equal(x, y)


def test_one_number_of_all_positions() -> None:
    for pool in ("mean", "max", "sum"):
        x, y, _ = ran(made("global_pool", pool=pool))
        torch.testing.assert_close(y, getattr(x, {"max": "amax"}.get(pool, pool))((2, 3), keepdim=True))


def test_channels_attend_by_products_as_they_are() -> None:
    module, (q, k, v), y = run(make(form="channels", normalize=False, scale=0.3), ALIKE)
    on_side = [each(t).transpose(-1, -2) for t in (q, k, v)]
    torch.testing.assert_close(each(y), ((on_side[0] @ on_side[1].mT * 0.3).softmax(-1) @ on_side[2]).mT)
    assert not list(module.parameters())
    same = make(form="channels", normalize=True).resolved(ALIKE, None)
    assert same == make(form="channels").resolved(ALIKE, None)
    plain = make(form="channels", normalize=False, scale=0.5).resolved(ALIKE, None)
    assert plain == make(form="channels", normalize=False).resolved(ALIKE, None)
