"""What a built model promises its users: timm's surface, copies that are equal and apart."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from model_cases import MODELS, build, close, image
from torch import nn

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Layer


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param)


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
