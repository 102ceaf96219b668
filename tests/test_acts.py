"""Activations: a name or a mapping wherever a block or a branch takes one."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Act, AnyOp, Shape
from blockforge.eject import eject
from blockforge.search.space.locate import locate
from blockforge.spec import fill
from blockforge.testing import accepts, check_op, check_spec, example_places, randomise
from blockforge.testing.figures import check_costs, check_workspace
from blockforge.testing.results import check_overwrites

SPEC = Path(__file__).parent / "specs" / "act.yaml"
PLUGIN = Path(__file__).parent / "data" / "plugin" / "learnt_swish.py"
ACTS = registry.blocks("act")
FORMULAS = {
    "elu": lambda x: torch.where(x > 0, x, x.clamp(max=0).expm1()),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hard_sigmoid": lambda x: ((x + 3) / 6).clamp(0, 1),
    "hard_swish": lambda x: x * ((x + 3) / 6).clamp(0, 1),
    "identity": lambda x: x,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "mish": lambda x: x * x.exp().log1p().tanh(),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
    "squared_relu": lambda x: x.clamp(min=0) ** 2,
    "star_relu": lambda x: 0.8944 * x.clamp(min=0) ** 2 - 0.4472,
    "tanh": torch.tanh,
}
CHANNELS = {"op": "prelu", "per_channel": True}


def hash_with(act: Any) -> str:
    return bf.compile(SPEC, {"let.act": act}).hash


@pytest.mark.parametrize("name", ACTS)
def test_in_a_spec(name: str) -> None:
    """Everything that a network promises, with each as a parameter of blocks and behind sums."""
    check_spec(bf.compile(SPEC, {"let.act": name}))


@pytest.mark.parametrize("name", ACTS)
def test_formula(name: str) -> None:
    x = 4 * torch.randn(2, 3, 5, 7)
    module = ACTS[name]().build(Shape(3, 5, 7))
    torch.testing.assert_close(module(x), FORMULAS[name](x))


def test_identity_keeps_the_laws_as_an_activation_too() -> None:
    check_op(ACTS["identity"]())


def test_slopes_are_of_channels() -> None:
    x, module = torch.randn(2, 3, 5, 7), registry.make("prelu", {"per_channel": True}, "act").build(Shape(3, 5, 7))
    (slopes,) = randomise(module).parameters()
    for row in (x, x[:, 0]):
        torch.testing.assert_close(module(row), torch.where(row > 0, row, slopes * row))


@pytest.mark.parametrize("act", ["star_relu", "prelu", CHANNELS, "hard_swish", "squared_relu", "none"], ids=str)
@pytest.mark.parametrize("name", [n for n, cls in registry.blocks().items() if "act" in cls.model_fields])
def test_costs_of_blocks(name: str, act: Any) -> None:
    op = registry.make(name, {"act": act})
    place = [p for p in example_places(op.kind) if accepts(op, *p)][-1]
    check_costs(op, *place)
    check_workspace(op, *place)


def test_a_mapping_is_a_name_with_parameters() -> None:
    assert hash_with("gelu") == hash_with({"op": "gelu"}) != hash_with("relu")
    assert hash_with("star_relu") == hash_with({"op": "star_relu", "scale": 0.8944})
    assert hash_with("prelu") != hash_with(CHANNELS)
    made = [registry.make("mlp", {"act": act}) for act in ("none", "identity", {"op": "identity"})]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("act", "written"),
    [
        ("gelu", "gelu"),
        ("none", "identity"),
        ({"op": "prelu", "init": 0.25}, "prelu"),
        (CHANNELS, {**CHANNELS, "init": 0.25}),
    ],
    ids=str,
)
def test_parameters_say_the_name_alone_where_that_is_all(act: Any, written: Any) -> None:
    op = registry.make("mlp", {"act": act})
    assert op.parameters_dict() == {"mlp_ratio": 4.0, "act": written}
    assert registry.make("mlp", op.parameters_dict()) == op


@pytest.mark.parametrize("where", ["blocks.layer.1.act", "blocks.layer.1.post_act", "stem.act", "downsample.act"])
def test_mistakes_say_where_and_what_would_do(where: str) -> None:
    for wrong, text in {
        "hardswish": r"no act named 'hardswish' .*\n.*\n.*\n.*did you mean 'hard_swish'\? known acts: elu, gelu",
        "mlp": "'mlp' is an ffn, not an act",
        "{op: prelu, slope: 1}": "'prelu' has no parameter 'slope'",
        "{op: prelu, init: steep}": "this should be a number, not the text 'steep'",
    }.items():
        with pytest.raises(bf.SpecError, match=text):
            bf.compile(SPEC, [f"{where}={wrong}"])


def test_what_is_no_activation() -> None:
    with pytest.raises(bf.SpecError, match=r"an activation is a name, \{op: ...\}, or none"):
        bf.compile(SPEC, {"stem.act": 3})


@pytest.mark.parametrize("act", ["hard_swish", "star_relu", CHANNELS, {"op": "prelu", "init": 0.1}], ids=str)
def test_ejected(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bf.build(SPEC, {"let.act": act}, seed=0).eval()
    module = types.ModuleType("ejected")
    monkeypatch.setitem(sys.modules, "ejected", module)
    exec(eject(model), module.__dict__)  # type: ignore[arg-type]
    alone = module.Backbone().eval()
    alone.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 24, 40)
    with torch.no_grad():
        y = model(x)
        assert y.isfinite().all()
        torch.testing.assert_close(alone(x), y)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = randomise(bf.build(SPEC, {"let.act": CHANNELS})).eval()
    bf.save_model(model, tmp_path)
    x = torch.randn(1, 3, 24, 40)
    with torch.no_grad():
        assert torch.equal(bf.load_model(tmp_path).eval()(x), model(x))


def test_holes_of_activations_are_located() -> None:
    holes = {"let.act": {"$choice": ["relu", {"op": "star_relu", "bias": -0.4472}, CHANNELS]}}
    space = bf.load(SPEC, holes)
    for act in ("relu", "star_relu", {**CHANNELS, "init": 0.25}):
        answers = locate(space, bf.load(SPEC, {"let.act": act}))
        assert bf.compile(fill(space, answers)).hash == hash_with(act)


# --- a third party's


def test_of_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    registry.load_plugin(PLUGIN)
    check_op(registry.make("learnt_swish", {"beta": 2}, "act"))
    check_op(registry.make("mlp", {"act": {"op": "learnt_swish", "beta": 0.5}}))
    model = check_spec(bf.compile(SPEC, {"let.act": "learnt_swish"}))
    bf.save_model(model, tmp_path)
    assert (tmp_path / "spec.yaml").read_text().startswith(f"# needs --plugin {PLUGIN} for learnt_swish\n")


class _Untrue(Act):
    """Says that it may overwrite, and may not."""

    op, overwrites = "untrue", True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Softplus()


class _Other(_Untrue):
    """Gives something else where it overwrites."""

    def build(self, shape: Shape) -> nn.Module:
        return _OtherModule()


class _OtherModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1

    def overwrite(self, x: Tensor) -> Tensor:
        return x.add_(2)


@pytest.mark.parametrize(("op", "text"), [(_Untrue(), "overwrites is True"), (_Other(), "gives another result")])
def test_what_an_activation_says_of_overwriting_is_held_against_what_it_does(op: AnyOp, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check_overwrites(op, Shape(3, 4, 5))
