"""Rotary embeddings of positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.blocks.part import Part
from blockforge.errors import OpError


def made(name: str, **params: Any) -> Part:
    op = registry.make(name, params, "part")
    assert isinstance(op, Part)
    return op


@pytest.mark.parametrize("pairs", ["neighbours", "halves"])
def test_rope_turns_pairs_of_channels(pairs: str) -> None:
    """As complex numbers of length 1, for rows, then for columns; products of two depend on their distance alone."""
    op, place = made("rope", num_heads=2, pairs=pairs, temperature=100.0), (Shape(5, 4, 16), None)
    x = torch.randn(2, *place[0], dtype=torch.double)

    def as_complex(t: Tensor) -> Tensor:
        heads = t.unflatten(-1, (2, 8))
        parts = heads.chunk(2, -1) if pairs == "halves" else heads.unflatten(-1, (4, 2)).unbind(-1)
        return torch.complex(*(part.contiguous() for part in parts))

    y, row, column = op.build(*place)(x), 3, 2
    angles = torch.tensor([row, row / 10, column, column / 10], dtype=torch.double)
    wanted = as_complex(x)[:, row, column] * torch.polar(torch.ones(4).double(), angles)
    torch.testing.assert_close(as_complex(y)[:, row, column], wanted, rtol=1e-5, atol=1e-5)
    same = x[:, :1, :1].expand_as(x)
    turned = op.build(*place)(same)
    apart = [(turned[:, i, 1] * turned[:, i + 2, 2]).sum(-1) for i in (0, 2)]
    torch.testing.assert_close(*apart, rtol=1e-4, atol=1e-4)


def test_rope_counts_as_on_another_map_and_leaves_tokens_alone() -> None:
    shape = Shape(2, 4, 8)
    x = torch.randn(2, *shape)
    close_ups = made("rope", head_dim=8, size=[4, 8]).build(shape, None)(x)
    larger = torch.zeros(2, 4, 8, 8)
    larger[:, ::2, ::2] = x
    plain = made("rope", head_dim=8).build(Shape(4, 8, 8), None)
    torch.testing.assert_close(close_ups, plain(larger)[:, ::2, ::2])
    row = torch.cat((torch.randn(2, 1, 3, 8), x.flatten(1, 2)[:, None]), 2)
    beside = made("rope", head_dim=8, size=[4, 8]).build(shape._replace(extra=3), None)(row)
    assert torch.equal(beside[:, :, :3], row[:, :, :3])
    assert torch.equal(beside[:, 0, 3:].reshape(x.shape), close_ups)
    with pytest.raises(OpError, match="width of a head 6 is not divisible by 4, for pairs of rows and of columns"):
        made("rope", head_dim=6).check(Shape(2, 2, 12), None)
