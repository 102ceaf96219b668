"""Activations in their input's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import registry
from blockforge.blocks.acts.identity import Identity
from blockforge.blocks.base import Shape
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.kernels.cpu import activate
from blockforge.testing.examples import accepts, variants


@pytest.mark.parametrize("name", [name for name, cls in registry.blocks("act").items() if cls != Identity])
def test_an_activation_overwrites_its_own_input_in_inference_alone(name: str) -> None:
    op, x = registry.make(name, {}, "act"), torch.randn(3, 5)
    act = op.build(Shape(1, 3, 5))
    before = x.clone()
    recorded = activate(act, x, own=True)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert activate(act, x, own=False).data_ptr() != x.data_ptr()
        assert torch.equal(x, before)
        y = activate(act, x, own=True)
    assert (y.data_ptr() == x.data_ptr()) is op.overwrites
    torch.testing.assert_close(y, recorded)


def test_a_captured_graph_overwrites_nothing() -> None:
    class Act(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return activate(nn.GELU(), x, own=True)

    x = torch.randn(3, 5)
    before = x.clone()
    with torch.no_grad():
        exported = torch.export.export(Act(), (x,)).module()
        torch.testing.assert_close(exported(x), F.gelu(before))
    assert torch.equal(x, before)


def test_what_a_hook_has_kept_stays_as_it_was() -> None:
    module, kept = registry.get("mlp")().build(Shape(4, 4, 8)).eval(), []
    x, fc1 = torch.randn(2, 4, 4, 8), module.fc1
    module.fc1.register_forward_hook(lambda _m, _args, y: kept.append(y))  # type: ignore[union-attr]
    with torch.no_grad():
        module(x)
        torch.testing.assert_close(kept[0], F.linear(x, fc1.weight, fc1.bias))  # type: ignore[arg-type]


def test_in_a_row_an_activation_overwrites_what_was_made_for_it() -> None:
    row, x = Maps(Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.GELU()).eval(), torch.randn(2, 5, 6, 4)
    seen: list[Tensor] = []
    with torch.no_grad():
        wanted = row(x)
        for at in (0, 1):
            row[at].register_forward_hook(lambda _m, _args, y: seen.append(y))
        assert torch.equal(row(x), wanted)
        torch.testing.assert_close(F.gelu(seen[1]).permute(0, 2, 3, 1), wanted)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU(inplace=True)])
def test_a_pruned_row_leaves_its_input_alone(act: nn.Module) -> None:
    row, x = Maps(Conv2d(4, 4, 3), act).eval(), torch.randn(2, 5, 6, 4)
    row[0] = nn.Identity()
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(row(x), before.relu())
    assert torch.equal(x, before)


def test_full_backward_hooks_behind_an_activation_that_overwrites() -> None:
    row, seen = Maps(Conv2d(4, 4, 3), nn.ReLU(inplace=True)), []
    row[0].register_full_backward_hook(lambda _m, _dx, dy: seen.append(dy))
    row(torch.randn(2, 5, 6, 4, requires_grad=True)).sum().backward()
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["0", "1"])
def test_hooks_of_the_backward_pass_on_either_side(name: str) -> None:
    """torch hands a module with such hooks a view, which it must not overwrite."""
    row, x = Maps(Conv2d(4, 4, 3), nn.ReLU(inplace=True)), torch.randn(2, 5, 6, 4)
    with torch.no_grad():
        before = row(x)
    seen: list[str] = []
    row.get_submodule(name).register_full_backward_hook(lambda _m, _dx, _dy: seen.append(name))
    y = row(x.clone().requires_grad_())
    y.sum().backward()
    assert seen == [name]
    torch.testing.assert_close(y.detach(), before)
    assert row[1].inplace


SMALL = [Shape(1, 1, 8), Shape(1, 1, 4), Shape(2, 1, 4), Shape(1, 4, 1), Shape(4, 4, 1), Shape(4, 8, 4)]
"""In a batch of one some of these lie in memory as parts of them do, or as they would on their side."""
BESIDE_TOKENS = [Shape(2, 2, 8, 1), Shape(1, 1, 8, 2)]


@pytest.mark.parametrize("name", registry.blocks("part"))
def test_what_is_said_to_be_copied_is_a_copy(name: str) -> None:
    """What comes next may overwrite it."""
    for op in variants(registry.get(name)):
        shapes = SMALL if op.tokens_are() != "own" or isinstance(op, OfParts) else [*SMALL, *BESIDE_TOKENS]
        for shape in [s for s in shapes if accepts(op, s, None) and min(op.out_shape(s, None)[:2]) > 0]:
            x = torch.randn(1, *shape.row)
            module, maps = op.build(shape, None).eval(), x.permute(0, 3, 1, 2) if op.layout == "NCHW" else x
            with torch.no_grad():
                is_view = module(maps).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
            assert not (is_view and op.workspace(shape, None)), (op, shape)


AROUND: list[dict[str, Any]] = [
    *({"op": "across", "axis": axis} for axis in ("positions", "rows", "columns")),
    {"op": "tiles", "size": 4},
    {"op": "tiles", "size": 1, "order": "grid"},
    {"op": "split", "count": 4, "share": True},
]


@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_what_overwrites_a_map_in_another_order_leaves_the_map_alone(around: dict[str, Any], shape: Shape) -> None:
    both = registry.make("parallel", {"of": ["identity", {**around, "of": "relu"}], "join": "concat"}, "part")
    if not accepts(both, shape, None):
        return
    x = torch.randn(1, *shape)
    before = x.clone()
    with torch.no_grad():
        assert torch.equal(both.build(shape, None).eval()(x), torch.cat([before, before.relu()], -1))
    assert torch.equal(x, before)
