"""Shorter ways of composed code: shares of a map as views, a sum in the pass of its convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from blockforge.blocks.base import Shape
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.compose.written import freeze
from blockforge.blocks.compose.written_op import Written
from blockforge.blocks.layers import residual_dwconv
from blockforge.testing.measure import peak_bytes_per_image

PLACE = (Shape(6, 5, 8), None)


def composed(*ops: Any) -> Composed:
    module = Written(of=Bound(freeze(list(ops)))).build(*PLACE)
    assert isinstance(module, Composed)
    return module.eval()


def gated(*, order: list[str]) -> list[Any]:
    halves = {
        "gate": {"from": "fc", "op": {"op": "slice", "size": 12}},
        "value": {"from": "fc", "op": {"op": "slice", "start": 12}},
    }
    members = {"fc": {"op": "linear", "dim": 24}, **{name: halves[name] for name in order}}
    members |= {"act": {"from": "gate", "op": "silu"}, "gated": {"from": ["act", "value"], "join": "mul"}}
    return [{"op": "graph", "of": members}, {"op": "linear", "dim": 8}]


def test_shares_that_are_only_looked_at_are_views() -> None:
    module = composed(*gated(order=["gate", "value"]))
    assert "x2, x3 = x1.split([12, 12], -1)" in module.code
    assert "activate(self.graph.act, x2, untouched(self.graph.fc, made[0]))" in module.code
    x = torch.randn(2, *PLACE[0])
    fc, proj = module.get_submodule("graph.fc"), module.get_submodule("linear")
    gate, value = fc(x).chunk(2, -1)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), proj(nn.functional.silu(gate) * value), rtol=0, atol=0)


@pytest.mark.parametrize(
    "ops",
    [
        gated(order=["value", "gate"]),  # not in the order of the channels
        [
            {"op": "split", "of": ["silu", {"op": "linear"}], "join": "mul"}
        ],  # a linear layer wants its channels together
        [{"op": "split", "of": ["silu", "identity"]}],  # side by side again
        [{"op": "split", "of": ["silu", "identity"], "join": "mul", "sizes": [4, 4]}, {"op": "linear", "dim": 8}],
    ],
)
def test_memory_is_what_is_held_with_views_and_copies(ops: list[Any]) -> None:
    module = composed(*ops)
    held = peak_bytes_per_image(module, lambda batch: (torch.randn(batch, *PLACE[0]),))
    assert held == 4 * module.program.workspace()
    assert (".split(" in module.code) is (ops[0].get("sizes") is not None)


def test_a_map_that_is_read_later_is_not_overwritten() -> None:
    both = {"gate": {"op": "split", "of": ["silu", "identity"], "join": "mul"}, "whole": {"op": "linear", "dim": 4}}
    module = composed({"op": "linear", "dim": 8}, {"op": "parallel", "of": both})
    x = torch.randn(2, *PLACE[0])
    with torch.inference_mode():
        y = module(x)
    torch.testing.assert_close(y, module(x).detach())
    assert ".split(" not in module.code


def test_a_sum_with_what_a_convolution_reads_is_one_pass() -> None:
    conv: dict[str, Any] = {"op": "dwconv", "kernel_size": 3}
    for ops in ([{"op": "residual", "of": conv}], [{"op": "parallel", "of": [conv, "identity"]}]):
        module = composed(*ops)
        assert "residual_dwconv(" in module.code
        leaf = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
        x = torch.randn(2, *PLACE[0])
        with torch.inference_mode():
            torch.testing.assert_close(module(x), residual_dwconv(leaf, x), rtol=0, atol=0)
        assert module.program.workspace() == PLACE[0].elements


@pytest.mark.parametrize(
    "ops",
    [
        [{"op": "residual", "of": {"op": "conv", "kernel_size": 3}}],
        [{"op": "residual", "of": [{"op": "dwconv", "kernel_size": 3}, "relu"]}],
        [{"op": "residual", "of": {"op": "dwconv", "kernel_size": 3, "dilation": 2, "padding": 2}}],
        [{"op": "parallel", "join": {"op": "sum", "weights": [1, -1]}, "of": [{"op": "dwconv"}, "identity"]}],
    ],
)
def test_other_sums_stay(ops: list[Any]) -> None:
    assert "residual_dwconv" not in composed(*ops).code
