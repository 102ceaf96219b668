"""Grad-CAM, where it has a closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.analyze import AnalysisError, grad_cam
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.extras import MissingExtraError

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]


@pytest.mark.parametrize("target", [None, 3])
def test_with_a_linear_head_it_is_the_classifiers_weighted_map(small: Small, noise: Noise, target: int | None) -> None:
    model = small("attention", {"head": {"op": "classifier"}})
    x = noise(model, 1)
    found = grad_cam(model, x, target)
    with torch.no_grad():
        logits, maps = model(x)[0], model.forward_features(x)[0]
    assert found.target == (int(logits.argmax()) if target is None else target)
    expected = torch.einsum("c,chw->hw", model.get_classifier().weight[found.target], maps).relu().detach()
    torch.testing.assert_close(found.map, expected / expected.max(), rtol=1e-4, atol=1e-5)
    assert found.layer == "stages.1.layers.1"
    assert found.top[0] == (int(logits.argmax()), pytest.approx(float(logits.softmax(0).max())))
    assert len(found.top) == 5


def test_other_layers_and_windows(small: Small, noise: Noise) -> None:
    model = small("attention", {"stages.0.window": 4})
    x = noise(model, 1)
    assert tuple(grad_cam(model, x, 0, "stages.0.window_out").map.shape) == (10, 14)
    assert tuple(grad_cam(model, x, 0, "stem").map.shape) == (10, 14)
    with pytest.raises(AnalysisError, match=r"no layer 'stages.0.layers.0'.*\n  hint: .*layers: stages.0.window_out"):
        grad_cam(model, x, 0, "stages.0.layers.0")


def test_a_class_token_is_read_from_the_layer_before() -> None:
    model = bf.build("deit_s", {"input.size": 64, "stages.0.dim": 24, "stages.0.depth": 3}, seed=0).eval()
    found = grad_cam(model, torch.randn(1, 3, 64, 64))
    assert found.layer == "stages.0.layers.1"
    assert tuple(found.map.shape) == (4, 4)


def test_mistakes(small: Small, noise: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("attention")
    with pytest.raises(AnalysisError, match=r"no class 10 in attention\n  hint: 0 to 9"):
        grad_cam(model, noise(model, 1), 10)
    with torch.no_grad():
        model.get_classifier().weight.zero_()
    with pytest.raises(
        AnalysisError, match=r"nothing in the map of stages.1.layers.1 speaks for class 1\n  hint: another"
    ):
        grad_cam(model, noise(model, 1), 1)
    monkeypatch.setattr("blockforge.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs captum\n  hint: pip install 'blockforge\[analyze\]'"):
        grad_cam(model, noise(model, 1))
