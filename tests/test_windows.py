"""Attention in windows: against attention written out position by position, and on maps of every size."""

from __future__ import annotations

from math import isqrt
from typing import Any

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.blocks.mixers.attention import Attention
from blockforge.blocks.windows import cut_windows, join_windows
from blockforge.errors import OpError
from blockforge.testing import check_spec
from blockforge.testing.measure import randomise

SHAPES = [Shape(8, 12, 8), Shape(7, 9, 8), Shape(5, 13, 8), Shape(4, 8, 8), Shape(3, 10, 8)]
OPS = [
    Attention(num_heads=2, window=4, rel_pos_bias=True),
    Attention(num_heads=2, window=4, shift=2, rel_pos_bias=True),
    Attention(num_heads=2, window=4, shift=3),
    Attention(num_heads=1, window=3, shift="half", rel_pos_bias=True, qk_norm=True),
]


def written_out(op: Attention, module: torch.nn.Module, x_HWC: Tensor) -> Tensor:
    """Every position attends to those of its window that were its neighbours before the shift."""
    height, width, dim = x_HWC.shape
    side, _, shift, _ = op.tiles(Shape(height, width, dim))
    rows, columns = height + -height % side, width + -width % side
    padded = torch.zeros(rows, columns, dim, dtype=x_HWC.dtype)
    padded[:height, :width] = x_HWC
    heads = op.heads(dim)
    q, k, v = module.qkv(padded[None])[0].unflatten(-1, (3, heads, -1)).unbind(2)
    if op.qk_norm:
        q, k = module.q_norm(q), module.k_norm(k)
    y = torch.empty(height, width, heads, dim // heads, dtype=x_HWC.dtype)

    def tile(at: int, size: int) -> tuple[int, bool]:
        """The window of a position, and whether the shift carried it to the other end."""
        return (at - shift) % size // side, at < shift

    for i in range(height):
        for j in range(width):
            own = (tile(i, rows), tile(j, columns))
            everywhere = [(a, b) for a in range(rows) for b in range(columns)]
            seen = [(a, b) for a, b in everywhere if (tile(a, rows), tile(b, columns)) == own]
            for head in range(heads):
                logits = torch.stack([q[i, j, head] @ k[a, b, head] for a, b in seen]) * (dim // heads) ** -0.5
                if op.rel_pos_bias:
                    table = module.rel_pos.table[:, head]
                    table = table.unflatten(0, (isqrt(len(table)), -1))
                    middle = len(table) // 2
                    bias = [table[middle + i - a, middle + j - b] for a, b in seen]
                    logits = logits + torch.stack(bias)
                y[i, j, head] = logits.softmax(0) @ torch.stack([v[a, b, head] for a, b in seen])
    return module.proj(y.flatten(2)[None])[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_window_attention_is_what_it_says(op: Attention, shape: Shape) -> None:
    module = randomise(op.build(shape)).double().eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        torch.testing.assert_close(module(x)[1], written_out(op, module, x[1]))


@pytest.mark.parametrize("op", OPS, ids=str)
@pytest.mark.parametrize("built", [Shape(8, 12, 8), Shape(4, 4, 8)], ids=str)
def test_windows_shift_and_mask_are_those_of_the_map_that_comes(op: Attention, built: Shape) -> None:
    """Larger, smaller, odd and flat maps, and maps that are smaller than a window."""
    module = randomise(op.build(built)).double().eval()
    for size in ((8, 12), (4, 4), (6, 5), (12, 4), (9, 9), (3, 2), (1, 7)):
        x = torch.randn(1, *size, 8, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            torch.testing.assert_close(module(x)[0], written_out(op, module, x[0]), msg=lambda m, s=size: f"{s}: {m}")
            weights, positions = module.attention_weights(x)
        assert len(weights) == len(positions) == op.tiles(Shape(*size, 8)).number


def test_a_window_that_shrank_with_its_bias_does_not_grow_again() -> None:
    """Its parameters are those of the smaller window: on a large map it is a layer with that window."""
    small = Attention(num_heads=2, window=7, shift="half", rel_pos_bias=True)
    module, shape = randomise(small.build(Shape(5, 6, 8))).eval(), Shape(11, 14, 8)
    said = Attention(num_heads=2, window=5, shift="half", rel_pos_bias=True).build(shape).eval()
    said.load_state_dict(module.state_dict())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(module(x), said(x))
        free = Attention(num_heads=2, window=7, shift="half")  # without a bias nothing shrank for good
        one, other = randomise(free.build(Shape(5, 6, 8))).eval(), free.build(shape).eval()
        other.load_state_dict(one.state_dict())
        torch.testing.assert_close(one(x), other(x))


def test_a_window_that_covers_the_map_is_global_attention() -> None:
    shape = Shape(6, 6, 8)
    whole = Attention(num_heads=2, rel_pos_bias=True)
    window = Attention(num_heads=2, window=9, shift=4, rel_pos_bias=True)
    one, other = randomise(whole.build(shape)).eval(), window.build(shape).eval()
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x))


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_joining_windows_undoes_cutting(shift: int) -> None:
    x = torch.randn(2, 7, 10, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(join_windows(cut_windows(x, 4, shift), 4, 7, 10, shift), x)


def test_global_bias_refuses_another_size() -> None:
    module = Attention(num_heads=2, rel_pos_bias=True).build(Shape(4, 6, 8))
    with pytest.raises(OpError, match="built for maps of 4x6, not 6x4"):
        module(torch.zeros(1, 6, 4, 8))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shift": 2}, "a shift but no window"),
        ({"window": 4, "shift": 4}, "shift 4 is not smaller than window 4"),
    ],
)
def test_wrong_shifts(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(OpError, match=message):
        registry.make("attention", parameters, "mixer")


@pytest.mark.parametrize(
    ("op", "window"),
    [
        ({"op": "conv", "kernel_size": 3, "stride": 2, "dim": "$out"}, 4),
        ({"op": "conv", "kernel_size": 3, "stride": [2, 1], "dim": "$out"}, 3),
        ({"op": "resize", "scale": 2}, 3),
        ("global_pool", 3),
        ({"op": "linear", "dim": 24}, 3),
    ],
)
def test_layers_in_windows_may_change_the_map(op: Any, window: int) -> None:
    """Windows of another size make up another map, as tiles do; its shapes and costs are the module's."""

    def network(op: Any, **stage: Any) -> bf.Architecture:
        stem = {"op": "conv", "dim": 16, "kernel_size": 4, "stride": 4}
        layer, after = {"op": op, "norm": "none", "skip": False}, {"layers": [{"op": "conv", "kernel_size": 3}]}
        spec = {"blockforge": 1, "name": "windows", "input": {"size": 32}, "num_classes": 3, "stem": stem}
        spec |= {"blocks": {"b": [layer]}, "stages": [{"layers": "b", "depth": 1, **stage}, after]}
        return bf.compile(spec | {"head": ["global_pool", "logits"], "defaults": {"norm": "layer_norm"}})

    windows, tiles = network(op, window=window), network({"op": "tiles", "size": window, "of": op})
    assert [w.end.last.out_shape for w in windows.stages] == [t.end.last.out_shape for t in tiles.stages]
    assert (windows.params, windows.macs) == (tiles.params, tiles.macs)
    check_spec(windows)
