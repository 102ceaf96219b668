"""timm builds, reads and trains our models as its own."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm

import blockforge as bf

SMALL = {f"stages.{i}.{k}": v for i in range(4) for k, v in (("dim", 16 * 2**i), ("depth", (1, 1, 2, 1)[i]))}
SPECS = Path(__file__).parents[1] / "specs"


@pytest.fixture(scope="module")
def timm() -> Any:
    module = load_timm()
    import blockforge.timm  # noqa: F401  (registers)

    return module


def small(timm: Any, **given: Any) -> Any:
    return timm.create_model("bf_smt_b", overrides=SMALL, **given)


# --- the registry


def test_every_zoo_spec_is_registered(timm: Any) -> None:
    assert timm.list_models("bf_*") == sorted(timm.list_models("bf_*"))
    assert set(timm.list_models("bf_*")) == {f"bf_{name}" for name in bf.list_specs()}
    assert not timm.list_models("bf_*", pretrained=True)


def test_pretrained_cfg(timm: Any) -> None:
    cfg = timm.get_pretrained_cfg("bf_smt_t")
    assert (cfg.input_size, cfg.pool_size, cfg.num_classes) == ((3, 224, 224), (7, 7), 1000)
    assert (cfg.first_conv, cfg.classifier, cfg.architecture) == ("stem.0", "head.fc", "bf_smt_t")
    assert cfg.mean == timm.data.IMAGENET_DEFAULT_MEAN
    fixed = {n for n in timm.list_models("bf_*") if timm.get_pretrained_cfg(n).fixed_input_size}
    assert {"bf_deit_s", "bf_mlp_mixer_b16", "bf_strip_mlp_t"} <= fixed
    assert not fixed & {"bf_smt_t", "bf_vssd_tiny", "bf_resnet50", "bf_swin_tiny", "bf_mambavision_t"}


def test_names_of_pretrained_cfg_are_in_every_family(timm: Any) -> None:
    """The first convolution reads the image, the classifier gives the logits."""
    families = {name.split("_")[1]: name for name in timm.list_models("bf_*")}
    for name in families.values():
        cfg = timm.get_pretrained_cfg(name)
        with torch.device("meta"):
            model = bf.build(name.removeprefix("bf_"))
        firsts = [cfg.first_conv] if isinstance(cfg.first_conv, str) else cfg.first_conv
        assert firsts, name
        assert all(model.get_submodule(first).weight.shape[1] == 3 for first in firsts), name
        classifier, *_ = [cfg.classifier] if isinstance(cfg.classifier, str) else cfg.classifier
        assert model.get_submodule(classifier) is model.get_classifier(), name


# --- create_model


def test_whole_model(timm: Any) -> None:
    model = small(timm, num_classes=10, in_chans=1, img_size=64, drop_path_rate=0.2, drop_rate=0.0).eval()
    x = torch.randn(2, 1, 64, 64)
    assert model(x).shape == (2, 10)
    assert (model.num_classes, model.in_chans, model.num_features, model.head_hidden_size) == (10, 1, 128, 128)
    assert model.arch.plan.drop_path[-1] == pytest.approx(0.2)
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
    final, maps = model.forward_intermediates(x, output_fmt="NCHW", norm=False, stop_early=False)
    assert torch.equal(final, maps[-1])
    first, (also,) = model.forward_intermediates(x, indices=[0], stop_early=True)
    assert torch.equal(first, also)
    assert torch.equal(first, maps[0])


@pytest.mark.parametrize("feature_cls", [None, "getter"])
def test_features_only(timm: Any, feature_cls: str | None) -> None:
    given: dict[str, Any] = {"num_classes": 10, "features_only": True, "out_indices": (1, 2, 3), "drop_path_rate": 0.1}
    model = small(timm, feature_cls=feature_cls, **given).eval()
    maps = model(torch.randn(2, 3, 64, 96))
    assert [m.shape[1] for m in maps] == model.feature_info.channels() == [32, 64, 128]
    assert model.feature_info.reduction() == [8, 16, 32]
    assert model.in_chans == 3
    assert "classifier" not in model.pretrained_cfg
    assert model.default_cfg["first_conv"] == "stem.0"
    default = small(timm, features_only=True, feature_cls=feature_cls)
    assert len(default.feature_info.channels()) == 4


def test_maps_behind_norms(timm: Any) -> None:
    model = small(timm, features_only=True, out_indices=(1, 3), out_norm="layer_norm", seed=0, img_size=64).eval()
    plain = small(timm, features_only=True, out_indices=(1, 3), seed=0, img_size=64).eval()
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model(x), plain(x), strict=True):
        expected = torch.nn.functional.layer_norm(theirs.permute(0, 2, 3, 1), theirs.shape[1:2])
        torch.testing.assert_close(ours.permute(0, 2, 3, 1), expected)
    assert {k for k in model.state_dict() if k.startswith("out_norms")} == {
        f"out_norms.{i}.{name}" for i in (1, 3) for name in ("weight", "bias")
    }


def test_maps_of_class_tokens_are_their_patches(timm: Any) -> None:
    change = {"stages.0.depth": 2}
    given: dict[str, Any] = {"overrides": change, "img_size": (64, 96), "seed": 0}
    whole = timm.create_model("bf_deit_s", **given).eval()
    x = torch.randn(2, 3, 64, 96)
    patches = whole.forward_features(x)[:, :, 0, 1:]
    for getter in (None, "getter"):
        model = timm.create_model("bf_deit_s", features_only=True, feature_cls=getter, **given).eval()
        (found,) = model(x)
        assert found.shape == (2, 384, 4, 6)
        torch.testing.assert_close(found.flatten(2), patches)
        assert (model.feature_info.channels(), model.feature_info.reduction()) == ([384], [16])


def test_features_of_a_model_are_its_own(timm: Any) -> None:
    whole = small(timm).eval()
    features = whole.features([0, -1])
    assert next(features.parameters()) is next(whole.parameters())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(features(x)[1], whole.forward_features(x))
    assert not any(k.startswith("head.") for k in features.state_dict())


@pytest.mark.parametrize("how", ["reset", "create"])
def test_no_pooling(timm: Any, how: str, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 64, 64)
    if how == "reset":
        model = small(timm).eval()
        model.reset_classifier(0, "")
    else:
        model = small(timm, num_classes=0, global_pool="").eval()
    y = model(x)
    assert torch.equal(y, model.forward_features(x))
    bf.save_model(model, tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), bf.load_model(tmp_path).eval()):
        assert torch.equal(other(x), y)
        assert set(other.state_dict()) == set(model.state_dict())
    model.reset_classifier(0)
    assert model(x).ndim == 4
    model.reset_classifier(3, "avg")
    assert model(x).shape == (2, 3)
    assert copy.deepcopy(model)(x).shape == (2, 3)


@pytest.mark.parametrize("reset", [False, True])
def test_dropout_before_the_classifier(timm: Any, reset: bool) -> None:
    model, plain = (small(timm, num_classes=10, drop_rate=p, img_size=64, seed=1) for p in (0.5, 0.0))
    if reset:
        model.reset_classifier(10)
        plain.head.fc.load_state_dict(model.head.fc.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    last = plain.forward_features(x)
    dropped = copy.deepcopy(model).train().forward_head(last)
    features = model.forward_head(last, pre_logits=True)
    assert torch.equal(features, plain.forward_head(last, pre_logits=True))
    torch.manual_seed(0)
    expected = model.head.fc(torch.nn.functional.dropout(features, 0.5))
    torch.manual_seed(0)
    assert torch.equal(model.train().forward_head(last), expected)
    assert not torch.equal(dropped, plain.forward_head(last))


def test_a_head_without_dropout(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from blockforge.blocks.heads.classifier import ClassifierModule

    made = ClassifierModule.__init__

    def init(self: Any, *given: Any) -> None:
        made(self, *given)
        del self.drop_rate

    monkeypatch.setattr(ClassifierModule, "__init__", init)
    with pytest.raises(bf.BlockforgeError, match="the head of bf_smt_b has no dropout before its classifier"):
        small(timm, drop_rate=0.1)


@pytest.mark.parametrize(("pool", "reduced"), [("avg", torch.mean), ("max", torch.amax)])
def test_pooling(timm: Any, pool: str, reduced: Any) -> None:
    model = small(timm, num_classes=0, global_pool=pool).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = reduced(model.head.norm(model.forward_features(x).permute(0, 2, 3, 1)), (1, 2))
    torch.testing.assert_close(model(x), expected)


def test_classes_need_pooling(timm: Any) -> None:
    with pytest.raises(bf.BlockforgeError, match="1000 classes need pooled features"):
        small(timm, global_pool="")


def test_copies_keep_what_timm_notes(timm: Any) -> None:
    model = small(timm, num_classes=5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.pretrained_cfg == model.pretrained_cfg
        assert other.default_cfg is other.pretrained_cfg
        assert other._model_args == model._model_args
        assert other.num_classes == 5


def test_any_spec(timm: Any) -> None:
    model = timm.create_model("blockforge", spec=str(SPECS / "sam.yaml"), num_classes=3)
    assert model(torch.randn(2, 3, 40, 56)).shape == (2, 3)
    assert model.pretrained_cfg["input_size"] == (3, 40, 56)
    again = timm.create_model("blockforge", spec=model.spec.tree, overrides={"stages.0.depth": 2})
    assert (again.num_classes, len(again.arch.plan.stages[0].layers)) == (3, 2)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown argument": ({"drop_path": 0.1}, "bf_smt_b takes no 'drop_path'\n  hint: did you mean 'drop_path_rate'"),
    "output stride": ({"output_stride": 16}, "takes no 'output_stride'"),
    "dropout": ({"drop_rate": 1.5}, "drop_rate=1.5 is not a share of the features"),
    "dropout inside": ({"proj_drop_rate": 0.1}, "takes no 'proj_drop_rate'"),
    "feature class": ({"features_only": True, "feature_cls": "fx"}, "feature_cls='fx' is not for this model"),
    "norms of no maps": ({"out_norm": "layer_norm"}, "out_norm is for feature maps\n  hint: features_only=True"),
    "norms behind timm's wrapper": (
        {"features_only": True, "feature_cls": "getter", "out_norm": "layer_norm"},
        "timm's wrapper puts no norms behind maps\n  hint: leave feature_cls out",
    ),
    "pooling": ({"global_pool": "agv"}, "avg"),
    "format": ({"features_only": True, "feature_cls": "getter", "output_fmt": "NHWC"}, "takes no 'output_fmt'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(timm: Any, case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(bf.BlockforgeError, match=message):
        small(timm, **given)


def test_wrong_specs(timm: Any) -> None:
    with pytest.raises(bf.BlockforgeError, match="the model 'blockforge' needs a spec"):
        timm.create_model("blockforge")
    with pytest.raises(bf.SpecError, match="did you mean 'smt_t'"):
        timm.create_model("blockforge", spec="smt_tt")


# --- weights


def test_weights_of_another_classifier_and_image(timm: Any, tmp_path: Path) -> None:
    source = bf.build("smt_b", SMALL, seed=3)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    overlay = {"file": str(tmp_path / "own.pth")}
    model = small(timm, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1)
    found, expected = model.state_dict(), source.state_dict()
    assert found["head.fc.weight"].shape == (5, 128)
    torch.testing.assert_close(found["stem.0.weight"], expected["stem.0.weight"].sum(1, keepdim=True))
    same = [k for k in expected if not k.startswith(("head.fc", "stem.0"))]
    assert all(torch.equal(found[k], expected[k]) for k in same)
    maps = small(timm, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in maps.items())


def test_weights_in_the_official_layout(timm: Any, tmp_path: Path) -> None:
    """timm's own resnet stands for an official checkpoint: ours has the same network."""
    official = timm.create_model("resnet50", layers=(2, 3, 2, 2))
    torch.save({"state_dict": official.state_dict()}, tmp_path / "official.pth")
    overlay, depths = {"file": str(tmp_path / "official.pth")}, {f"stages.{i}.depth": (1, 2, 1, 1)[i] for i in range(4)}
    model = timm.create_model("bf_resnet50", pretrained=True, pretrained_cfg_overlay=overlay, overrides=depths).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), official.eval()(x), rtol=1e-3, atol=1e-4)


def test_checkpoint_path(timm: Any, tmp_path: Path) -> None:
    source = bf.build("smt_b", SMALL, seed=3)
    bf.save_model(source, tmp_path)
    model = small(timm, checkpoint_path=str(tmp_path / "model.safetensors"))
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())


def test_weights_that_do_not_fit(timm: Any, tmp_path: Path) -> None:
    torch.save(bf.build("smt_b", SMALL, num_classes=7).state_dict(), tmp_path / "own.pth")
    overlay: dict[str, Any] = {"file": str(tmp_path / "own.pth")}
    hint = r"with 7 classes: set num_classes=7 \(pretrained_cfg_overlay: num_classes, input_size\)"
    with pytest.raises(bf.WeightsError, match=hint):
        small(timm, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5)
    model = small(timm, pretrained=True, pretrained_cfg_overlay={**overlay, "num_classes": 7}, num_classes=5)
    assert model.get_classifier().out_features == 5
    torch.save(bf.build("smt_b", {**SMALL, "stages.0.dim": 8}).state_dict(), tmp_path / "own.pth")
    with pytest.raises(bf.WeightsError, match=r"do not fit the network's \d+ tensors: \d+ of another shape"):
        small(timm, pretrained=True, pretrained_cfg_overlay=overlay)


# --- training


@pytest.mark.parametrize("name", ["smt_t", "strip_mlp_t_light", "resnet50", "deit_s"])
def test_layer_decay_groups(timm: Any, name: str) -> None:
    from timm.models import group_parameters

    with torch.device("meta"):
        model = bf.build(name)
    order = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    assert set(order) == {n for n, _ in model.named_parameters()}
    last = max(order.values())
    assert {i for n, i in order.items() if n.startswith("stem")} == {0}
    assert {i for n, i in order.items() if n.startswith("head")} == {last}
    assert last == model.arch.depth + 1, "one group a layer between stem and head"
    for stage in range(1, len(model.feature_info)):
        first = min(i for n, i in order.items() if n.startswith(f"stages.{stage}.layers.0."))
        leading = [n for n in order if n.startswith((f"stages.{stage}.downsample", "skips.")) and _to(n) == stage]
        assert {order[n] for n in leading} <= {first}
        norms = [i for n, i in order.items() if n.startswith(f"stages.{stage - 1}.norm")]
        assert set(norms) <= {first - 1}
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert max(coarse.values()) == len(model.feature_info) + 1


def _to(name: str) -> int:
    """The stage that a downsample or skip leads to."""
    parts = name.split(".")
    return int(parts[1] if parts[0] == "stages" else parts[2])


def test_optimiser_of_timm(timm: Any) -> None:
    from timm.optim import create_optimizer_v2

    model = small(timm)
    optimiser = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = sorted({g["lr_scale"] for g in optimiser.param_groups})
    assert len(scales) == model.arch.depth + 2
    assert scales[-1] == 1.0
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    named = dict(model.named_parameters())
    assert decayed
    assert not decayed & {id(named[n]) for n in model.no_weight_decay()}


def test_tracers_of_torchvision_take_layers_whole(timm: Any) -> None:
    from timm.models import get_notrace_modules
    from torchvision.models.feature_extraction import create_feature_extractor

    model = small(timm).eval()
    x = torch.randn(1, 3, 64, 64)
    kwargs = {"leaf_modules": get_notrace_modules()}
    traced = create_feature_extractor(model, ["stages.2.norm"], tracer_kwargs=kwargs)
    (found,) = traced(x).values()
    torch.testing.assert_close(found.permute(0, 3, 1, 2), model.forward_intermediates(x, [2])[1][0])
