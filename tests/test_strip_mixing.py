"""Strip mixing against its definition, position by position, on maps that are not square."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.mixers.strip_mixing import CGSMM, Order, StripConv
from blockforge.blocks.parts.grn import GRN
from blockforge.errors import OpError, SpecError
from blockforge.testing.measure import randomise


def mixed_rows(conv: StripConv, x_HWC: Tensor) -> Tensor:
    """Each position is a sum over all columns of its row and of the rows beside it, by group."""
    height, width, dim = x_HWC.shape
    strip = conv.conv.kernel_size[1]
    weight = conv.conv.weight.view(conv.groups, width, width, strip)  # to, from
    bias = conv.conv.bias.view(conv.groups, width)
    y = torch.empty_like(x_HWC)
    for i in range(height):
        for c in range(dim):
            group = c % conv.groups
            y[i, :, c] = bias[group]
            for k in range(strip):
                if 0 <= i + k - strip // 2 < height:
                    y[i, :, c] += weight[group, :, :, k] @ x_HWC[i + k - strip // 2, :, c]
    return y


@pytest.mark.parametrize("order", ["cascade", "parallel"])
@pytest.mark.parametrize(("groups", "strip"), [(1, 3), (2, 1), (3, 5), (6, 3)])
def test_cgsmm_is_what_it_says(groups: int, strip: int, order: Order) -> None:
    shape = Shape(4, 7, 6)
    module = randomise(CGSMM(shape, groups, strip, order)).double().eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        distance = torch.arange(7)[None] - torch.arange(4)[:, None]
        at_rows = module.pos_rows.table[distance.clamp(-4, 4) + 4]
        at_columns = module.pos_columns.table[distance + 7]
        for image, y in zip(x, module(x), strict=True):
            rows = torch.cat([mixed_rows(module.rows, image + at_rows), image], dim=-1)
            rows = module.act(on_nchw(module.bn, module.fuse_rows(rows[None])))[0]
            base = (rows if order == "cascade" else image) + at_columns
            columns = mixed_rows(module.columns, base.transpose(0, 1)).transpose(0, 1)
            columns = module.fuse_columns(torch.cat([image, columns], dim=-1)[None])[0]
            torch.testing.assert_close(y, columns if order == "cascade" else rows + columns)


def test_another_size_than_the_built_one_is_refused() -> None:
    model = bf.build("strip_mlp_t_light", {"input.size": [64, 96], "stages.2.depth": 1}).eval()
    with torch.no_grad(), pytest.raises(OpError, match="built for maps of 16x24, not 24x16") as error:
        model(torch.zeros(1, 3, 96, 64))
    assert "input.size" in str(error.value.hint)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stages.1.let.patch": 3}, "the width of cgsmm 80 is not divisible by patch 3"),
        ({"let.strip": 2}, "kernel size 2 is even"),
    ],
)
def test_wrong_parameters(overrides: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bf.compile("strip_mlp_t", overrides)


def test_response_of_a_silent_channel_has_a_gradient() -> None:
    module = randomise(GRN(3))
    x = torch.randn(1, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    x[..., 1] = 0
    module(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
