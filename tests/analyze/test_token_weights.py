"""Token weights beside the scan that uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blockforge.analyze import AnalysisError, token_weights
from blockforge.blocks.mixers.nc_ssd import NCSSDModule
from blockforge.compiler.lowering.backbone import Backbone

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]


def test_they_are_what_the_tokens_are_multiplied_by(
    small: Small, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan with one state that all tokens feed alike adds up the weighted values: its sum tells the weights."""
    model = small("nc_ssd", {"input.size": [32, 40]})
    x = noise(model, 2)
    used: list[Tensor] = []

    def scan(self: Any, values: Tensor, steps: Tensor, B: Tensor, C: Tensor) -> Tensor:
        used.append((steps * self.A_log.exp()).mean(-1).detach())
        return original(self, values, steps, B, C)

    original = NCSSDModule.scan
    monkeypatch.setattr(NCSSDModule, "scan", scan)
    with torch.no_grad():
        model(x)
    monkeypatch.undo()
    found = token_weights(model, x.split(1))
    assert [layer.node for layer in found] == [
        "stages.0.layers.0.nc_ssd", "stages.1.layers.0.nc_ssd", "stages.1.layers.1.nc_ssd"
    ]  # fmt: skip
    for layer, weights in zip(found, used, strict=True):
        torch.testing.assert_close(layer.weights.flatten(1), weights)
    assert tuple(found[0].weights.shape) == (2, 8, 10)


def test_windows_are_put_back(small: Small, noise: Noise) -> None:
    whole, cut = small("nc_ssd"), small("nc_ssd", {"stages.0.window": 3})
    cut.load_state_dict(whole.state_dict())
    a, b = (token_weights(m, [noise(m, 2)])[0] for m in (whole, cut))
    torch.testing.assert_close(a.weights, b.weights)  # the first layer's weights look at each token alone


class Weighing(nn.Module):
    """A module of somebody else that exposes its weights."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def token_weights(self, x: Tensor) -> Tensor:
        return x[..., :2]


def test_any_module_may_expose_them(small: Small, noise: Noise) -> None:
    model = small("attention")
    branch = model.stages.get_submodule("1.layers.0.attention")
    branch.op = Weighing(branch.op)
    (found,) = token_weights(model, [noise(model, 1)])
    assert found.node == "stages.1.layers.0.attention"


def test_a_network_without_them_names_others(small: Small, noise: Noise) -> None:
    unweighted = small("nc_ssd", {"blocks.block.0.weighted": False})
    for model in (small("attention"), unweighted):
        with pytest.raises(AnalysisError, match=r"token weights\n  hint: these have: vssd_base, vssd_micro"):
            token_weights(model, [noise(model, 1)])
