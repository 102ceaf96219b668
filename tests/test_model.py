"""What a built model promises: timm's surface, and to be an ordinary torch module."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.compiler.backbone import Backbone
from blockforge.compiler.modules import Layer
from blockforge.testing import randomise

SPECS = Path(__file__).parent / "specs"
SMT: dict[str, Any] = {
    "input.size": 64,
    "num_classes": 10,
    **{f"stages.{i}.dim": 16 * 2**i for i in range(4)},
    **{f"stages.{i}.depth": (1, 1, 2, 1)[i] for i in range(4)},
}
CONNECTED = {
    "stages.0.window": 4,
    "stages.0.depth": 2,
    "stages.1.depth": 4,
    "stages.1.connect": {"rule": "sparx", "stride": 2, "window": 1, "aggregate": "concat"},
}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "smt": ("smt_b", SMT),
    "connected": (SPECS / "sam.yaml", CONNECTED),
    "skips": (SPECS / "dwconv_downsample.yaml", {"stages.2.window": 2}),
}
"""Three small models that between them have everything a graph may have."""


def build(which: str, **given: Any) -> Backbone:
    source, overrides = MODELS[which]
    model = bf.build(source, overrides, seed=0, **given)
    return randomise(model).eval()  # type: ignore[return-value]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param)


def image(model: Backbone, batch: int = 2, seed: int = 0) -> Tensor:
    size = model.arch.plan.input.size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# --- surface


def test_attributes(model: Backbone) -> None:
    assert isinstance(model, nn.Module)
    assert model.spec is model.arch.spec
    assert model.num_classes == 10
    assert model.num_features == model.head_hidden_size == model.arch.stage_shapes()[-1].dim
    assert model.get_classifier().out_features == 10
    assert model(image(model)).shape == (2, 10)


def test_forward_in_two_halves(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape[:2] == (2, model.num_features)
        assert torch.equal(model.forward_head(features), model(x))
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, model.num_features)
        assert torch.equal(model.get_classifier()(pooled), model(x))


def test_forward_intermediates(model: Backbone) -> None:
    x, stages = image(model), len(model.arch.plan.stages)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        assert len(maps) == stages
        assert torch.equal(last, model.forward_features(x))
        assert torch.equal(last, maps[-1])
        _, (first,) = model.forward_intermediates(x, indices=[0])
        assert torch.equal(first, maps[0])
        chosen = model.forward_intermediates(x, indices=2, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(chosen, maps[-2:], strict=True))
        (negative,) = model.forward_intermediates(x, indices=[-1], intermediates_only=True)
        assert torch.equal(negative, maps[-1])


def test_features_only(model: Backbone) -> None:
    x = image(model)
    features = bf.build(model.arch, features_only=True).eval()
    features.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
    with torch.no_grad():
        maps, (_, expected) = features(x), model.forward_intermediates(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    info = features.feature_info
    assert info.channels() == [m.shape[1] for m in maps]
    assert info.reduction() == [round(x.shape[2] / m.shape[2]) for m in maps]
    assert info.module_name() == [f"stages.{i}" for i in range(len(maps))]
    assert [d["num_chs"] for d in info.get_dicts(["num_chs"])] == info.channels()
    assert info.channels(0) == info[0]["num_chs"] == next(iter(info))["num_chs"]
    assert features.num_classes == 0


@pytest.mark.parametrize(
    ("out_indices", "channels", "reductions"),
    [
        ([0], [16], [4]),
        ((1, 3), [32, 128], [8, 32]),
        ([-2], [64], [16]),
        ([3, 0], [128, 16], [32, 4]),
        ([-1, -4], [128, 16], [32, 4]),
    ],
)
def test_out_indices(out_indices: list[int], channels: list[int], reductions: list[int]) -> None:
    model = build("smt", out_indices=out_indices)
    maps = model(image(model))
    assert [m.shape[1] for m in maps] == channels == model.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == reductions == model.feature_info.reduction()


def test_out_indices_build_no_more_than_they_need() -> None:
    whole, first = build("smt"), build("smt", out_indices=[0, 1])
    names = {n for n, _ in first.named_parameters()}
    assert names == {n for n, _ in whole.named_parameters() if n.startswith(("stem.", "stages.0.", "stages.1."))}
    assert "stages_2" not in first.code


@pytest.mark.parametrize("indices", [[4], [-5], [0, 9]])
def test_out_indices_that_are_none(indices: list[int]) -> None:
    with pytest.raises(bf.BlockforgeError, match=r"there is no stage .*; out_indices are 0 to 3"):
        build("smt", out_indices=indices)


@pytest.mark.parametrize("name", ["forward_features", "forward_head", "get_classifier", "reset_classifier"])
def test_features_only_has_no_head(name: str) -> None:
    model = build("smt", features_only=True)
    args = {"get_classifier": [], "reset_classifier": [3]}.get(name, [image(model)])
    with pytest.raises(bf.BlockforgeError, match=f"{name} needs a whole model"):
        getattr(model, name)(*args)


@pytest.mark.parametrize("num_classes", [3, 0])
def test_reset_classifier(model: Backbone, num_classes: int) -> None:
    x = image(model)
    features = model.forward_features(x)
    model.reset_classifier(num_classes)
    outputs = num_classes or model.num_features
    assert model(x).shape == (2, outputs)
    assert model.num_classes == model.arch.plan.num_classes == model.spec.num_classes == num_classes
    assert model.arch.params == sum(p.numel() for p in model.parameters())
    assert torch.equal(model.forward_features(x), features)
    if num_classes == 0:
        assert torch.equal(model(x), model.forward_head(features, pre_logits=True))
    assert copy.deepcopy(model)(x).shape == (2, outputs)


def test_reset_classifier_keeps_dtype_and_pools() -> None:
    model = build("smt").double()
    x = image(model).double()
    model.reset_classifier(4, global_pool="max")
    assert model.get_classifier().weight.dtype == torch.float64
    features = model.forward_features(x)
    close(model.forward_head(features, pre_logits=True), features.amax((2, 3)))
    assert {n["parameters"].get("pool") for n in model.arch.graph.nodes.values() if n["kind"] == "head"} == {"max"}


def test_reset_classifier_from_no_classes() -> None:
    model = build("smt", num_classes=0)
    assert model(image(model)).shape == (2, 128)
    model.reset_classifier(5)
    assert model(image(model)).shape == (2, 5)


def test_no_weight_decay() -> None:
    source, overrides = MODELS["smt"]
    branch = {"op": "mlp", "scale": {"branch": 0.1, "skip": 1.0}}
    model = bf.build(source, {**overrides, "blocks.sam.1": branch})
    names = {n for n, _ in model.named_parameters()}
    spared = model.no_weight_decay()
    assert spared <= names
    expected = {n for n in names if n.endswith(("scale", "skip_scale", "skip_bias"))}
    assert expected <= spared
    assert expected


def test_grad_checkpointing_gives_the_same_gradients(model: Backbone) -> None:
    x, layers = image(model), [m for m in model.modules() if isinstance(m, Layer)]
    grads = []
    for enable in (False, True, False):
        model.set_grad_checkpointing(enable)
        assert all(layer.grad_checkpointing is enable for layer in layers)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(list(model.parameters()))
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            close(a, b)


def test_grad_checkpointing_keeps_less() -> None:
    model = build("smt")
    x = image(model)

    def kept() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            model(x)
        return sum(sizes)

    plain = kept()
    model.set_grad_checkpointing()
    assert kept() < plain / 2


# --- an ordinary module


def test_copies_are_equal_and_apart(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        y = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), y)
            assert other.arch.hash == model.arch.hash
            assert not other.training
            assert other.code == model.code
            next(other.parameters()).zero_()
        assert torch.equal(model(x), y)


def test_copies_of_views(model: Backbone) -> None:
    """A view that was made before the copy must not share the original's weights."""
    x = image(model)
    with torch.no_grad():
        before = model.forward_features(x)
        other = copy.deepcopy(model)
        for parameter in other.parameters():
            parameter.mul_(0.5)
        assert torch.equal(model.forward_features(x), before)
        assert not torch.equal(other.forward_features(x), before)


def test_views_follow_the_model(model: Backbone) -> None:
    """`forward_features` uses the model's own modules: in eval mode, in another dtype, with new weights."""
    x = image(model)
    with torch.no_grad():
        model.forward_features(x)
        model.double()
        assert model.forward_features(x.double()).dtype == torch.float64
        model.float()
        model.load_state_dict({k: v * 0 if v.is_floating_point() else v for k, v in model.state_dict().items()})
        assert not model.forward_features(x).any()
    assert set(model.state_dict()) == set(copy.deepcopy(model).state_dict())


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
    assert maps[0].is_contiguous()


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
