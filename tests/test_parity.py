"""With the official code's weights, every family gives the official code's results, gradients included.

`tests/parity/NAME.yaml` is an ordinary spec for the narrow fixture NAME; full-size fixtures bear the name of
their zoo spec. A fixture and a spec are all that a new family needs here.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import FOLDER, GRAD_INPUT, GRAD_NORMS, LOGITS, LOGITS64, Fixture, fill, filled, noise, rel

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.weights.family import family_of
from blockforge.weights.official import convert

SPECS = Path(__file__).parent / "parity"
NARROW = sorted(f.stem for f in SPECS.glob("*.yaml"))
FULL = sorted({f.stem for f in FOLDER.glob("*.json")} - set(NARROW))
fixture = functools.cache(Fixture.load)


def source(name: str) -> str:
    return str(SPECS / f"{name}.yaml") if name in NARROW else name


def official(name: str) -> Backbone:
    return bf.from_official(source(name), fixture(name).state).eval()


def test_there_are_fixtures() -> None:
    assert {"smt_head3", "smt_head7"} <= set(NARROW)
    assert "smt_t" in FULL


@pytest.mark.parametrize("name", [*NARROW, *FULL])
def test_counts(name: str) -> None:
    facts, arch = fixture(name).facts, bf.compile(source(name))
    assert (arch.params, arch.macs) == (facts["params"], facts["macs"] + facts["scan_flops"])


@pytest.mark.parametrize("name", [*NARROW, *FULL])
def test_logits(name: str) -> None:
    fx, model = fixture(name), official(name)
    with torch.no_grad():
        off = rel(model(fx.image), fx.tensors["logits"])
        off64 = rel(model.double()(fx.image.double()), fx.tensors["logits64"])
    assert off < LOGITS
    assert off64 < LOGITS64, "only the comparison in float64 is sure to see a wrong epsilon"


@pytest.mark.parametrize("name", NARROW)
def test_maps_of_the_stages(name: str) -> None:
    fx = fixture(name)
    with torch.no_grad():
        _, maps = official(name).forward_intermediates(fx.image)
    off = [rel(found, fx.tensors[f"stage{i + 1}"]) for i, found in enumerate(maps)]
    assert max(off) < LOGITS, off  # the first stage that is off holds the mistake


@pytest.mark.parametrize("name", NARROW)
def test_gradients(name: str) -> None:
    fx, model = fixture(name), official(name)
    x = fx.image.clone().requires_grad_()
    logits = model(x)
    loss = (logits * noise(logits.shape, fx.facts["grad_seed"])).sum()
    loss.backward()
    assert x.grad is not None
    assert loss.item() == pytest.approx(fx.facts["loss"], rel=1e-4)
    off = rel(x.grad, fx.tensors["grad_input"])
    assert off < GRAD_INPUT
    expected = {k: pytest.approx(v, rel=GRAD_NORMS, abs=1e-6) for k, v in fx.facts["grad_norms"].items()}
    assert official_grad_norms(model, fx) == expected


def official_grad_norms(model: Backbone, fx: Fixture) -> dict[str, float]:
    """The norm of each official parameter's gradient.

    A layout only moves elements, so a state whose every element is its tensor's number shows where they went.
    """
    names = [key for key, _ in fx.facts["state"]]
    numbered = {key: torch.full(value.shape, float(names.index(key))) for key, value in fx.state.items()}
    homes = convert(model.state_dict(), numbered, family_of(numbered))
    squares = torch.zeros(len(names), dtype=torch.float64)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        squares.index_add_(0, homes[key].flatten().long(), parameter.grad.double().flatten() ** 2)
    return {k: squares[names.index(k)].sqrt().item() for k in fx.facts["grad_norms"]}


@pytest.mark.parametrize(
    ("change", "least"),
    [({"stages.2.layers": "sam* msa*"}, 1e-2), ({"defaults.norm.eps": 1e-3}, 1e-5)],
    ids=["other wiring", "other epsilon"],
)
def test_the_comparison_sees_mistakes(change: dict[str, Any], least: float) -> None:
    fx = fixture("smt_head3")
    wrong = bf.build(source("smt_head3"), change).eval()
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
