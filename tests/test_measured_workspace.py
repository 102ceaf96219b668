"""What a block holds, measured on the meta device where it does not say it, and listed where it says it wrongly."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import measured, primitives, registry
from blockforge.blocks.base import AnyOp, Cost, Mixer, Placed, Shape
from blockforge.blocks.layers import Linear
from blockforge.blocks.measured import measured_workspace
from blockforge.kernels.costs import COSTED, costs_of
from blockforge.testing import accepts, check_memory, check_op, example_places
from blockforge.testing.figures import check_workspace
from blockforge.testing.gradients import check_gradients

TWIN = """
blockforge: 1
name: net
input: {size: 32}
num_classes: 5
defaults: {norm: layer_norm}
blocks: {b: [BLOCK, mlp]}
stem: conv_stem
stages: [{dim: 8, depth: 1, layers: b}]
head: classifier
"""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> type[Mixer]:
    """A third party's block that says no workspace."""
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    monkeypatch.setattr(registry, "_MADE", {})

    @registry.mixer("one_gate")
    class OneGate(Mixer):
        """A gate of one unit."""

        def cost(self, shape: Shape) -> Cost:
            return primitives.linear(shape.dim, 1, 1) + primitives.linear(1, shape.dim, 1)

        def build(self, shape: Shape) -> nn.Module:
            return _Gate(shape.dim)

    return OneGate


class _Gate(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.squeeze, self.excite = Linear(dim, 1), Linear(1, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((1, 2), keepdim=True)).relu()).sigmoid()


def test_it_is_what_every_block_says_that_says_it() -> None:
    """On both backends: so the meta device makes what a CPU makes, its layouts included."""
    wrong = []
    for cls in registry.blocks().values():
        op: AnyOp = cls()
        place = next(p for p in example_places(op.kind) if accepts(op, *p))
        told = Placed(op, place).told
        for name in COSTED:
            with costs_of(name):
                says, found = op.workspace(*told), measured_workspace(op, told)
            if abs(says - found) > 0.1 * says:
                wrong.append((op.op, name, says, found))
    assert not wrong


def test_a_block_that_does_not_say_it(gate: type[Mixer]) -> None:
    op = gate()
    check_op(op, Shape(7, 5, 24))
    assert op.workspace(Shape(7, 5, 24)) == 7 * 5 * 24 + 24
    spec = TWIN.replace("BLOCK", "one_gate")
    check_memory(bf.build(_written(spec), seed=0))


def _written(text: str) -> Any:
    return yaml.safe_load(text)


def test_a_place_is_measured_once(gate: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    first = gate().workspace(Shape(5, 7, 8))
    monkeypatch.setattr(gate, "build", None)
    assert gate().workspace(Shape(5, 7, 8)) == first


@pytest.mark.parametrize("dim", range(4, 17, 2))
def test_a_gate_of_one_unit_that_is_cut_off_is_no_lack_of_gradients(gate: type[Mixer], dim: int) -> None:
    check_gradients(gate(), Shape(7, 5, dim))


class _Cut(_Gate):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((1, 2), keepdim=True)).clamp(max=0).relu()).sigmoid()


def test_weights_that_never_have_a_gradient_are_told(gate: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "build", lambda self, shape: _Cut(shape.dim))
    with pytest.raises(AssertionError, match=r"the gradient of excite.weight, squeeze.bias, squeeze.weight is zero"):
        check_gradients(gate(), Shape(7, 5, 8))


class _Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (_Looks, r"its module does not run on the meta device: .*"),
        (_Endless, r"it still runs after [\d,]+ operators, 0 s"),
    ],
)
def test_what_cannot_be_measured_is_refused_where_it_is_written(
    gate: type[Mixer], module: type[nn.Module], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "build", lambda self, shape: module())
    monkeypatch.setattr(measured, "SECONDS", 0.2)
    before, began = torch.random.get_rng_state(), time.monotonic()
    with pytest.raises(bf.SpecError) as told:
        bf.compile(_written(TWIN.replace("BLOCK", "one_gate")), {"name": module.__name__, "stages.0.dim": 12})
    assert time.monotonic() - began < 5
    assert re.search(rf"memory-unknown\]: the memory that 'one_gate' takes is not known: {reason}", str(told.value))
    assert "hint: give OneGate a method workspace()" in str(told.value)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_said_wrongly_lists_what_lives(gate: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "workspace", lambda self, shape: 3 * shape.elements)
    with pytest.raises(AssertionError) as told:
        check_workspace(gate(), Shape(7, 5, 24))
    first, alive, largest, *_ = str(told.value).splitlines()
    assert first == "predicted 10080 bytes an image at most on numba, 3456 were alive"
    assert alive == "  alive there, of 8 images:"
    assert re.fullmatch(
        r" +26,880 bytes  8x7x5x24 float32  aten.mul.Tensor, _Gate.forward \(test_measured_workspace.py:\d+\)", largest
    )


def test_of_a_network_too(gate: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "workspace", lambda self, shape: 99 * shape.elements)
    model = bf.build(_written(TWIN.replace("BLOCK", "one_gate")), {"name": "lying"}, seed=0)
    with pytest.raises(
        AssertionError, match=r"at stages.0.layers.0.one_gate\), \d+ were alive\n  alive there, of 8 im"
    ):
        check_memory(model)
