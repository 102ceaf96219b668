"""A built model is an ordinary torch module: saved, compiled, exported, trained, in any layout and size."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from model_cases import MODELS, SMT, SPECS, build, close, image
from torch import Tensor, nn

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param)


def test_state_dict_round_trip(model: Backbone) -> None:
    x, file = image(model), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = bf.build(model.arch, seed=9).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("which", MODELS)
def test_compile_without_breaks(which: str) -> None:
    model = build(which)
    x = image(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(x)
    close(compiled(x), expected)
    compiled(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's own making
def test_compile_with_inductor() -> None:
    model = bf.build(SPECS / "dwconv.yaml", seed=0).eval()
    x = image(model)
    with torch.no_grad():
        close(torch.compile(model, fullgraph=True)(x), model(x))


@pytest.mark.parametrize("which", MODELS)
def test_export(which: str) -> None:
    model = build(which)
    x = image(model)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}})
    with torch.no_grad():
        close(program.module()(x), model(x))
        other = image(model, batch=5, seed=1)
        close(program.module()(other), model(other))


def test_memory_formats(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        close(model(x.to(memory_format=torch.channels_last)), model(x))
        model.to(memory_format=torch.channels_last)
        close(model(x.to(memory_format=torch.channels_last)), model(x))
        strided = torch.cat([x, x], dim=3)[..., : x.shape[3]]
        close(model(strided), model(x))


def test_bfloat16(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        exact = model(x)
        low = model.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert ((low.float() - exact).norm() / exact.norm()).item() < 0.1


def test_autocast(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model(x)
    assert ((low.float() - exact).norm() / exact.norm()).item() < 0.1


@pytest.mark.parametrize("size", [(97, 130), (33, 64), (130, 47)], ids=str)
def test_other_sizes_than_the_spec(model: Backbone, size: tuple[int, int]) -> None:
    """The spec's size is what costs are stated for; the model takes any that leaves something of a map."""
    if model.spec.skips:
        size = (
            size[0] // 16 * 16 + 16,
            size[1] // 16 * 16 + 16,
        )  # so that the skip's floor meets the ceiling
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert model(x).shape == (2, 10)
        other = bf.build(model.arch, img_size=size).eval()
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))
        for found, shape in zip(model.forward_intermediates(x)[1], other.arch.stage_shapes(), strict=True):
            assert tuple(found.shape) == (2, shape.dim, shape.height, shape.width)


def test_batch_order_does_not_matter(model: Backbone) -> None:
    """Windows included: an image's tiles stay its own."""
    x, order = image(model, batch=4), [2, 0, 3, 1]
    with torch.no_grad():
        close(model(x[order]), model(x)[order])
        close(model(x[1:2]), model(x)[1:2])


# --- training


def test_drop_path(model: Backbone) -> None:
    x = image(model)
    dropping = bf.build(model.arch, drop_path_rate=0.5)
    dropping.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(dropping.eval()(x), model(x))
        dropping.train()
        assert not torch.equal(dropping(x), dropping(x))


def test_drop_path_rises_linearly() -> None:
    model = build("smt", drop_path_rate=0.4)
    rates = [n["drop_path"] for n in model.arch.graph.nodes.values() if n["kind"] == "mixer"]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    constant = bf.compile("smt_b", {**SMT, "drop_path": {"constant": 0.1}})
    assert {n["drop_path"] for n in constant.graph.nodes.values() if n["kind"] == "mixer"} == {0.1}


def test_drop_path_keeps_the_mean() -> None:
    from blockforge.blocks.layers import DropPath

    x = torch.ones(20_000, 2, 2, 1)
    y = DropPath(0.3).train()(x)
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))


@pytest.mark.parametrize("which", MODELS)
def test_training_reduces_the_loss(which: str) -> None:
    source, overrides = MODELS[which]
    model = bf.build(source, {**overrides, "drop_path": 0.0}, seed=0)
    x, target = image(model, batch=8), torch.arange(8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(x), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    assert losses[0] == pytest.approx(torch.tensor(10.0).log().item(), abs=1.0)


# --- build


def test_seed_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (bf.build("smt_b", SMT, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["head.fc.weight"], third["head.fc.weight"])


def test_without_a_seed_the_global_generator_decides() -> None:
    torch.manual_seed(5)
    first, second = (bf.build("smt_b", SMT).head.fc.weight for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(bf.build("smt_b", SMT).head.fc.weight, first)


def test_build_arguments() -> None:
    model = bf.build("smt_b", SMT, num_classes=3, img_size=(96, 40), in_chans=1, drop_path_rate=0.25)
    assert model(torch.randn(2, 1, 96, 40)).shape == (2, 3)
    plan = model.arch.plan
    assert (plan.num_classes, list(plan.input.size), plan.input.channels) == (3, [96, 40], 1)
    assert plan.drop_path[-1] == 0.25
    assert model.training


def test_one_channel_runs_channels_last() -> None:
    """The layout of a map of one channel is ambiguous; taken for NCHW, everything behind it would be slow."""
    model = bf.build(SPECS / "conv_stem.yaml", in_chans=1).eval()
    maps: list[Tensor] = []
    model.get_submodule("stem.0").register_forward_hook(lambda module, args, y: maps.append(y))
    model(torch.randn(2, 1, 45, 61))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "source",
    ["smt_t", bf.load("smt_t"), bf.load("smt_t").tree, bf.compile("smt_t")],
    ids=["name", "spec", "mapping", "arch"],
)
def test_sources(source: Any) -> None:
    with torch.device("meta"):
        assert bf.build(source).arch.hash == bf.compile("smt_t").hash
        assert bf.build(source, num_classes=5).arch.plan.num_classes == 5


def test_building_an_architecture_compiles_nothing_anew() -> None:
    arch = bf.compile("smt_t", SMT)
    assert bf.build(arch).arch is arch


def test_initial_values() -> None:
    """As SMT's paper: normals of 0.02 cut at 2 in linear layers, fan-out in convolutions, ones and zeros."""
    model = bf.build("smt_b", SMT, seed=0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel() > 2000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15), name
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15), name
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any(), name
