"""SMT with the official code's weights gives the official code's results, gradients included."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from reference import GRAD_INPUT, GRAD_NORMS, LOGITS, LOGITS64, Fixture, fill, filled, noise, rel

import blockforge as bf
from blockforge.compiler.backbone import Backbone
from blockforge.weights.official import families

NARROW = ("smt_head3", "smt_head7")
ALL = (*NARROW, "smt_t")
fixture = functools.cache(Fixture.load)


def overrides(fx: Fixture) -> dict[str, Any]:
    """The official class's arguments as paths of our spec."""
    kwargs = fx.facts["kwargs"]
    found: dict[str, Any] = {
        "stem.kernel_size": kwargs["head_conv"],
        "input.size": fx.facts["image_size"],
        "num_classes": kwargs.get("num_classes", 1000),
    }
    for i in range(4):
        found[f"stages.{i}.dim"] = kwargs["embed_dims"][i]
        found[f"stages.{i}.depth"] = kwargs["depths"][i]
        found[f"stages.{i}.let.mlp_ratio"] = kwargs["mlp_ratios"][i]
    return found


def official(name: str) -> Backbone:
    fx = fixture(name)
    return bf.from_official("smt_b", fx.state, overrides(fx)).eval()


@pytest.mark.parametrize("name", ALL)
def test_counts(name: str) -> None:
    facts = fixture(name).facts
    arch = bf.compile("smt_b", overrides(fixture(name)))
    assert (arch.params, arch.macs) == (facts["params"], facts["macs"])


@pytest.mark.parametrize("name", ALL)
def test_logits(name: str) -> None:
    fx = fixture(name)
    with torch.no_grad():
        assert rel(official(name)(fx.image), fx.tensors["logits"]) < LOGITS


@pytest.mark.parametrize("name", ALL)
def test_logits_in_float64(name: str) -> None:
    """Only this comparison is sure to see a wrong epsilon."""
    fx = fixture(name)
    with torch.no_grad():
        assert rel(official(name).double()(fx.image.double()), fx.tensors["logits64"]) < LOGITS64


@pytest.mark.parametrize("name", NARROW)
def test_maps_of_the_stages(name: str) -> None:
    fx = fixture(name)
    with torch.no_grad():
        last, maps = official(name).forward_intermediates(fx.image)
    for i, found in enumerate(maps):
        assert rel(found, fx.tensors[f"stage{i + 1}"]) < LOGITS, f"stage {i}"
    assert torch.equal(last, maps[-1])


@pytest.mark.parametrize("name", NARROW)
def test_gradients(name: str) -> None:
    fx, model = fixture(name), official(name)
    x = fx.image.clone().requires_grad_()
    logits = model(x)
    loss = (logits * noise(logits.shape, fx.facts["grad_seed"])).sum()
    loss.backward()
    assert x.grad is not None
    assert loss.item() == pytest.approx(fx.facts["loss"], rel=1e-4)
    assert rel(x.grad, fx.tensors["grad_input"]) < GRAD_INPUT
    norms = official_grad_norms(model, fx)
    assert norms.keys() == fx.facts["grad_norms"].keys()
    assert norms == {k: pytest.approx(v, rel=GRAD_NORMS) for k, v in fx.facts["grad_norms"].items()}


def official_grad_norms(model: Backbone, fx: Fixture) -> dict[str, float]:
    """The norm of each official parameter's gradient; ours may hold several, stacked along the first axis."""
    shapes, sources = dict(fx.facts["state"]), families()["smt"].sources
    norms = {}
    for key, parameter in model.named_parameters():
        names = sources(key)
        assert names is not None, key
        assert parameter.grad is not None, key
        parts = parameter.grad.split([shapes[n][0] for n in names]) if len(names) > 1 else [parameter.grad]
        norms |= {n: part.norm().item() for n, part in zip(names, parts, strict=True)}
    return norms


@pytest.mark.parametrize(
    ("change", "least"),
    [({"stages.2.layers": "sam* msa*"}, 1e-2), ({"defaults.norm.eps": 1e-3}, 1e-5)],
    ids=["other wiring", "other epsilon"],
)
def test_the_comparison_sees_mistakes(change: dict[str, Any], least: float) -> None:
    fx = fixture("smt_head3")
    wrong = bf.build("smt_b", {**overrides(fx), **change}).eval()
    right = official("smt_head3").state_dict()
    own = wrong.state_dict()
    shared = {k: right[k] for k in own if k in right and right[k].shape == own[k].shape}
    wrong.load_state_dict(shared, strict=False)
    with torch.no_grad():
        assert rel(wrong.double()(fx.image.double()), fx.tensors["logits64"]) > least


def test_rule_of_the_fixtures() -> None:
    assert torch.equal(filled("bn.running_var", [3]) >= 1, torch.ones(3, dtype=torch.bool))
    assert filled("norm.num_batches_tracked", []).dtype == torch.int64
    weight = filled("fc.weight", [64, 256])
    assert weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert torch.equal(weight, filled("fc.weight", [64, 256]))
    assert not torch.equal(weight, filled("fc2.weight", [64, 256]))
    assert set(fill([("a.bias", [2]), ("a.attn_mask", [4, 4])])) == {"a.bias"}
