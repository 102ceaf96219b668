"""Every registered block keeps the laws of `blockforge.testing`, and has a small spec that uses it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from pydantic import ValidationError
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import primitives, registry
from blockforge.blocks.base import AnyOp, Cost, Mixer, Op, Shape
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.mixers.attention import Attention
from blockforge.errors import OpError
from blockforge.testing import (
    accepts,
    check_op,
    check_spec,
    count_macs,
    example_places,
    peak_bytes,
    peak_bytes_per_image,
    variants,
)
from blockforge.testing.examples import field_values
from blockforge.testing.figures import check_workspace
from blockforge.testing.strategies import placed_ops, written

SPECS = Path(__file__).parent / "specs"
PLUGIN = Path(__file__).parent / "data" / "plugin"
BLOCKS = registry.blocks()
PIECES = {name: cls for name, cls in BLOCKS.items() if cls.kind in ("part", "join", "act")}
"""What stands inside blocks; whole networks of them are in tests/compose, of activations in `test_acts.py`."""


def _varies_its_own(op: Op) -> bool:
    """Of a block that derives from another one, whether a parameter that it adds has another value than usual."""
    cls = type(op)
    inherited = next((base.model_fields for base in cls.__mro__[1:] if base in BLOCKS.values()), {})
    return any(getattr(op, name) != getattr(cls(), name) for name in cls.model_fields.keys() - inherited.keys())


VARIANTS = [op for cls in BLOCKS.values() for op in variants(cls) if _varies_its_own(op)]


def _quick_and_slow() -> list[Any]:
    """Two values of each parameter, or set of parameters, that varies; the further ones are slow tests."""
    seen: Counter[tuple[str, ...]] = Counter()
    given = []
    for op in VARIANTS:
        usual = type(op)()
        varied = (op.op, *(name for name in type(op).model_fields if getattr(op, name) != getattr(usual, name)))
        seen[varied] += 1
        marks = [pytest.mark.slow] if seen[varied] > 2 else []
        given.append(pytest.param(op, marks=marks, id=f"{op.op}-{op}".replace(" ", ",")))
    return given


@pytest.mark.parametrize("name", BLOCKS)
def test_conformance(name: str) -> None:
    check_op(BLOCKS[name]())


@pytest.mark.parametrize("op", _quick_and_slow())
def test_conformance_of_variants(op: Op) -> None:
    check_op(op, *next(p for p in example_places(op.kind) if accepts(op, *p)))


NARROW = [
    ("attention", {"num_heads": 1, "head_dim": 2}),
    ("attention", {"num_heads": 1, "head_dim": 2, "window": 3, "shift": 1}),
    ("attention", {"num_heads": 8, "head_dim": 1, "local_conv": 3}),
    ("bi_ssd", {"d_state": 1, "expand": 0.5}),
    ("inverted_downsample", {"ratio": 0.5, "kernel_size": 1}),
    ("mamba_vision", {"d_state": 1, "expand": 0.5}),
    ("overlap_embed", {"kernel_size": 1, "padding": 2}),
    ("sparse_mlp", {"kernel_size": None, "act": "identity"}),
    ("ss2d", {"act": "identity", "gate": True}),
    ("ssd", {"d_state": 1, "expand": 0.5}),
]


@pytest.mark.parametrize(("name", "parameters"), NARROW)
def test_memory_of_blocks_narrower_inside_than_outside(name: str, parameters: dict[str, Any]) -> None:
    """Or whose activation gives back the very map that it was given: the most is alive elsewhere than usual."""
    op = registry.make(name, parameters)
    check_workspace(op, *example_places(op.kind)[0])


RATIOS = [
    (name, field) for name, cls in BLOCKS.items() for field, info in cls.model_fields.items()
    if cls.kind in ("mixer", "ffn", "stem", "downsample") and info.annotation is float
]  # fmt: skip


@pytest.mark.parametrize(("name", "field"), RATIOS)
def test_a_share_of_the_width_that_leaves_nothing_is_refused(name: str, field: str) -> None:
    cls = BLOCKS[name]
    place = (Shape(4, 4, 8),) if cls.kind in ("mixer", "ffn") else (Shape(8, 8, 8), 8)
    with pytest.raises(OpError):
        cls.model_validate({field: 0.01}).check(*place)


@pytest.mark.parametrize("cls", registry.blocks("mixer", "ffn", "norm").values(), ids=lambda cls: cls.op)
def test_memory_on_the_map_of_a_small_window(cls: type[AnyOp]) -> None:
    """What a block holds for each channel is little beside a map, and much beside nine positions."""
    if accepts(cls(), Shape(3, 3, 24)):
        check_workspace(cls(), Shape(3, 3, 24))


@pytest.mark.parametrize("name", ["group_norm", "layer_norm"])
def test_norms_without_a_bias(name: str) -> None:
    op = registry.make(name, {"bias": False}, "norm")
    place = example_places("norm")[0]
    check_op(op, *place)
    assert [key for key, _ in op.build(*place).named_parameters()] == ["weight"]
    assert "bias" not in registry.make(name, {}, "norm").parameters_dict()


@pytest.mark.slow
@pytest.mark.parametrize("cls", BLOCKS.values(), ids=BLOCKS)
def test_memory_of_every_two_parameters(cls: type[AnyOp]) -> None:
    values = [{name: value} for name in cls.model_fields for value in field_values(cls, name)]
    for one, other in itertools.combinations(values, 2):
        try:
            op = cls.model_validate(one | other)
        except ValidationError:
            continue
        place = example_places(op.kind)[0]
        if one.keys() != other.keys() and accepts(op, *place) and min(op.out_shape(*place)) > 0:
            check_workspace(op, *place)


@settings(max_examples=25)
@given(placed_ops())
def test_conformance_of_random_parameters(drawn: tuple[Op, tuple[Any, ...]]) -> None:
    op, place = drawn
    check_op(op, *place)


@pytest.mark.parametrize("name", sorted(BLOCKS.keys() - PIECES.keys()))
def test_small_spec(name: str) -> None:
    """Adding a block is one file and one small spec: it compiles, costs what it says and trains."""
    file = SPECS / f"{name}.yaml"
    assert file.is_file(), f"block '{name}' needs a small spec that uses it: tests/specs/{name}.yaml"
    arch = bf.compile(file)
    used = {op for node in arch.graph.nodes.values() for op in _ops(node["parameters"]) | {node["op"]}}
    used |= {node["norm"].op for node in arch.graph.nodes.values() if node["norm"] is not None}
    assert name in used
    assert len(arch.stage_shapes()) >= 2
    check_spec(arch)


def _ops(parameters: Any) -> set[str]:
    """Blocks named inside parameters, such as a downsample's norm."""
    nested = [v for v in parameters.values() if isinstance(v, dict)]
    return {v["op"] for v in nested}.union(*(_ops(v) for v in nested))


def test_no_small_spec_without_a_block() -> None:
    assert {f.stem for f in SPECS.glob("*.yaml")} == {*BLOCKS.keys() - PIECES.keys(), "act"}


def test_third_party_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    registry.load_plugin(PLUGIN / "pool_mixer.py")
    for op in variants(registry.get("pool_mixer", "mixer")):
        check_op(op)
    check_op(registry.make("pool_mixer", {"kernel_size": 5}), Shape(14, 9, 48))
    model = check_spec(PLUGIN / "pool_mixer.yaml")
    assert "stages_1_layers_1" in model.code


def test_behind_frozen_layers() -> None:
    """The input of a block that is trained alone needs no gradient. In its own process: torch may crash."""
    ran = subprocess.run([sys.executable, "-c", _FROZEN], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{ran.stdout.split()[-1:]} ends with {ran.returncode}: {ran.stderr[-500:]}"
    assert set(ran.stdout.split()) == set(registry.blocks())


_FROZEN = """
import torch
from blockforge.blocks import registry
from blockforge.testing import accepts, build_on_maps, example_inputs, example_places, variants
for name, cls in registry.blocks().items():
    print(name, flush=True)
    for op in variants(cls) if cls.kind in ("stem", "downsample") else [cls()]:
        place = next(p for p in example_places(op.kind) if accepts(op, *p))
        module = build_on_maps(op, *place)
        for _ in range(5):
            y = module(*example_inputs(op.kind, *place))
            if y.requires_grad:
                y.square().sum().backward()
"""


# --- the suite itself


class _Broken(Mixer):
    """A mixer with a mistake to be found."""

    op = "broken"

    def cost(self, shape: Shape) -> Cost:
        return primitives.linear(shape.dim, shape.dim, shape.positions)

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return nn.Linear(shape.dim, shape.dim)


class _WrongParams(_Broken):
    def cost(self, shape: Shape) -> Cost:
        return Cost(1, super().cost(shape).macs)


class _WrongMacs(_Broken):
    def cost(self, shape: Shape) -> Cost:
        return Cost(super().cost(shape).params, 7)


class _WrongWorkspace(_Broken):
    def workspace(self, shape: Shape) -> int:
        return 2 * shape.elements


class _Module(nn.Linear):
    def __init__(self, dim: int, how: str) -> None:
        super().__init__(dim, dim)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "mixes the batch":
                return super().forward(x).add_(x.mean(0, keepdim=True))
            case "crops":
                return super().forward(x)[:, 1:]
            case "detaches":
                return F.linear(x, self.weight, self.bias.detach())
            case "has a wrong gradient":
                return F.linear(x, self.weight, 2 * self.bias - self.bias.detach())
            case _:
                return F.linear(x.add_(1) if not x.requires_grad else x, self.weight, self.bias)


class _WrongModule(_Broken):
    how: str = ""

    def build(self, shape: Shape) -> nn.Module:
        return _Module(shape.dim, self.how)


@pytest.mark.parametrize(
    ("op", "law"),
    [
        (_WrongParams(), "check_costs.*predicted 1 parameters"),
        (_WrongMacs(), "check_costs.*predicted 7 multiply-adds"),
        (_WrongWorkspace(), "check_workspace.*bytes an image"),
        (_WrongModule(how="crops"), "check_shape.*declared"),
        (_WrongModule(how="detaches"), "check_gradients.*no gradient reaches bias"),
        (_WrongModule(how="has a wrong gradient"), "check_gradcheck.*not the derivative"),
        (_WrongModule(how="mixes the batch"), "check_batch.*not close"),
        (_WrongModule(how="writes into its input"), "check_(batch|deterministic)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_mistakes_are_found(op: Op, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_op(op, Shape(6, 9, 16))


def test_block_without_a_place_says_so() -> None:
    with pytest.raises(AssertionError, match="attention accepts no example place of a mixer; give one"):
        check_op(Attention(num_heads=7))


def test_fused_attention_is_counted() -> None:
    shape = Shape(5, 7, 32)
    module, x = Attention(num_heads=4).build(shape), torch.randn(1, *shape)
    assert count_macs(lambda: module(x)) == 35 * 32 * (4 * 32 + 2 * 35)


def test_peak_bytes_of_known_programs() -> None:
    x = torch.randn(100)

    def views_and_in_place() -> Tensor:
        y = x + 1  # 400
        y[10:].view(9, 10).mul_(2)
        z = y * 2  # 800
        del y
        return z[:5]

    def freed() -> Tensor:
        for _ in range(5):
            y = x + 1
            del y
        return x + 1

    assert peak_bytes(views_and_in_place) == 800
    assert peak_bytes(freed) == 400
    assert peak_bytes(lambda: x.view(10, 10).t()) == 0
    assert peak_bytes(lambda: torch.cat([x + 1, x + 2])) == 400 + 400 + 800


def test_peak_of_an_image_beside_a_table() -> None:
    """What is made once a call hides where most is held for each image, at any small batch."""
    table, made = torch.ones(5000), []

    def run(x: Tensor) -> Tensor:
        if not made:
            made.append(torch.zeros(1))  # once and for all, and no part of a later call
        y = (x + x).mul_(2) + x  # 2 * 400 an image
        return y[:, :4] + (table * 2)[:4]

    assert peak_bytes_per_image(run, lambda batch: (torch.ones(batch, 100),)) == 800


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_of_a_small_network_with_a_large_table(channels: int) -> None:
    block = {"op": "attention", "head_dim": 1, "rel_pos_bias": True, "norm": "none"}
    tree = {
        "blockforge": 1,
        "name": "table",
        "num_classes": 0,
        "input": {"size": 24, "channels": channels},
        "blocks": {"branch": [block]},
        "stem": "conv_stem",
        "downsample": "bottleneck_downsample",
        "stages": [{"dim": 8, "depth": 1, "layers": "branch"}],
        "head": "classifier",
    }
    check_spec(tree)


def test_example_places_are_not_square() -> None:
    shapes = [p[0] for kind in ("mixer", "stem", "downsample", "aggregator", "head") for p in example_places(kind)]
    assert all(s.height != s.width for s in shapes)
    assert any(s.height % 2 and s.width % 2 for s in shapes)


def test_variants_follow_the_fields() -> None:
    attention = list(variants(Attention))
    assert attention[0] == Attention()
    assert {op.qkv_bias for op in attention} == {True, False}
    assert {op.local_conv for op in attention} == {None, 1, 3, 5}
    classifier = list(variants(registry.get("classifier")))
    assert {op.pool for op in classifier} >= {"avg", "max"}
    assert {op.norm.op for op in classifier if op.norm} == set(registry.blocks("norm"))


def test_random_specs_can_write_every_variant() -> None:
    for op in VARIANTS:
        parameters = written(op)
        assert registry.make(parameters.pop("op"), parameters, op.kind) == op


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("padding", [0, 1, 2, 5])
def test_a_1x1_convolution_reads_what_torchs_does(stride: int, padding: int) -> None:
    conv = Conv2d(3, 4, 1, stride=stride, padding=padding)
    for height, width in ((1, 3), (5, 8), (24, 9)):
        x = torch.randn(2, height, width, 3).permute(0, 3, 1, 2)
        torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, stride, padding))


def test_a_name_that_is_no_blocks_is_told_for_any_kind() -> None:
    with pytest.raises(OpError, match="no block named 'silu_too'") as found:
        registry.make("silu_too", {})
    assert found.value.code == "unknown-block"
