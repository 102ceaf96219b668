"""BlockForge's backbones in MMEngine's registry."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import blockforge as bf

pytest.importorskip("mmengine", reason="not installed: pip install --no-deps -r tests/no-deps-requirements.txt")
from mmengine.registry import MODELS

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".*torch.jit.", DeprecationWarning)  # mmengine imports torch's optimisers
    import blockforge.integrations.mmengine

SPEC = str(Path(__file__).parents[1] / "specs" / "batch_norm.yaml")
STAGES = len(bf.load(SPEC).stages)


def build(**given: Any) -> Any:
    return MODELS.build({"type": "BlockForge", "spec": SPEC, **given})


def test_builds_by_type_and_spec() -> None:
    model = build(overrides={"stages.0.depth": 2}, in_channels=1, drop_path_rate=0.2)
    maps = model(torch.randn(2, 1, 64, 96))
    assert isinstance(maps, tuple)
    assert (
        [m.shape[1] for m in maps] == model.out_channels == bf.build(SPEC, features_only=True).feature_info.channels()
    )
    assert model.model.arch.plan.drop_path[-1] == pytest.approx(0.2)
    assert len(model.model.arch.plan.stages[0].layers) == 2


def test_out_indices() -> None:
    model = build(out_indices=(1,), with_cp=True)
    x = torch.randn(2, 3, 64, 64)
    (only,) = model(x)
    assert only.shape[1] == model.out_channels[0]
    only.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_out_norm() -> None:
    model = build(out_norm={"op": "layer_norm", "eps": 1e-6}, frozen_stages=STAGES)
    norms = {n: p for n, p in model.model.named_parameters() if n.startswith("out_norms")}
    assert {n.rpartition(".")[0] for n in norms} == {f"out_norms.{i}" for i in range(STAGES)}
    assert all(p.requires_grad for p in norms.values()), "what is frozen ends before them"
    assert model.out_channels == [m.shape[1] for m in model(torch.randn(2, 3, 64, 64))]


def test_maps_of_class_tokens_are_their_patches() -> None:
    change = {"stages.0.depth": 2}
    model = MODELS.build({"type": "BlockForge", "spec": "deit_s", "overrides": change, "img_size": (64, 96)}).eval()
    whole = bf.build("deit_s", change, img_size=(64, 96)).eval()
    whole.load_state_dict(model.model.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 96)
    (found,) = model(x)
    assert (found.shape, model.out_channels) == ((2, 384, 4, 6), [384])
    torch.testing.assert_close(found.flatten(2), whole.forward_features(x)[:, :, 0, 1:])


@pytest.mark.parametrize(
    ("spec", "built", "asked", "table"),
    [
        ("swin_tiny", {"let.window": 4}, {"let.window": 7}, "stages.0.layers.0.attention.op.rel_pos.table"),
        ("deit_s", {"input.size": 64}, {"input.size": [64, 96]}, "stem.pos_embed"),
    ],
)
@pytest.mark.parametrize("layout", ["ours", "official"])
def test_position_tables_are_resized(
    spec: str, built: Any, asked: Any, table: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `bf.build(weights=...)` resizes them, and a line says so."""
    from blockforge.weights.family import FAMILIES

    small = {f"stages.{i}.depth": 1 for i in range(len(bf.load(spec).stages))} | {"input.size": 64}
    state = bf.build(spec, {**small, **built}, seed=1).state_dict()
    if layout == "official":
        sources = FAMILIES[spec.partition("_")[0]].sources
        state = {(sources(key) or (key,))[0]: value for key, value in state.items()}
    torch.save(state, tmp_path / "whole.pth")
    whole = bf.build(spec, {**small, **asked}, weights=tmp_path / "whole.pth")
    assert "resized" in capsys.readouterr().err
    cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "whole.pth")}
    model = MODELS.build({"type": "BlockForge", "spec": spec, "overrides": {**small, **asked}, "init_cfg": cfg})
    model.init_weights()
    assert "resized" in capsys.readouterr().err
    found = model.model.state_dict()
    assert found[table].shape != bf.build(spec, {**small, **built}).state_dict()[table].shape
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in found.items())


@pytest.mark.parametrize("frozen", range(-1, STAGES + 1))
def test_frozen_stages(frozen: int) -> None:
    model = build(frozen_stages=frozen).train()
    for name, parameter in model.model.named_parameters():
        stage = 0 if name.startswith("stem") else int(name.split(".")[1]) + 1
        assert parameter.requires_grad == (stage > frozen), name
    assert model.model.get_submodule("stem").training == (frozen < 0)
    assert model.model.get_submodule("stages.1.layers.0").training == (frozen < 2)
    assert model.training


def test_frozen_stages_that_are_none() -> None:
    with pytest.raises(
        bf.BlockforgeError, match=rf"frozen_stages is 9; it may be -1 \(none\), 0 \(the stem\) to {STAGES}"
    ):
        build(frozen_stages=9)


def test_norm_eval_keeps_statistics() -> None:
    model = build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    before = [m.running_mean.clone() for m in norms]
    model(torch.randn(2, 3, 64, 64) + 3)
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_whole_model(tmp_path: Path, wrapped: bool) -> None:
    whole = bf.build(SPEC, num_classes=7, seed=3)
    state, cfg = whole.state_dict(), {"type": "Pretrained", "checkpoint": str(tmp_path / "own.pth")}
    if wrapped:  # as a detector saves them
        state = {"state_dict": {**{f"backbone.model.{k}": v for k, v in state.items()}, "neck.x": torch.ones(1)}}
        cfg["prefix"] = "backbone."
    torch.save(state, tmp_path / "own.pth")
    model = build(out_indices=(0, 1), init_cfg=cfg)
    model.init_weights()
    found = model.model.state_dict()
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in found.items())
    with torch.no_grad():
        next(model.parameters()).zero_()
    model.init_weights()
    assert not next(model.parameters()).any(), "weights are loaded once"


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    whole = bf.build(SPEC, {"stages.0.dim": 8})
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    model = build(init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "own.pth")})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(bf.WeightsError, match=r"own\.pth: the weights do .*: 24 of another shape\n  shape: stem"):
        model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_official_weights_of_another_classifier(tmp_path: Path) -> None:
    """The maps need no classifier, so that of the checkpoint may have any classes."""
    from blockforge.weights.family import FAMILIES

    small = {f"stages.{i}.{k}": v for i in range(4) for k, v in (("dim", 8), ("depth", 1))}
    whole = bf.build("poolformer_s12", small, num_classes=7)
    names = {key: FAMILIES["poolformer"].sources(key) or () for key in whole.state_dict()}
    state = {names[key][0]: value for key, value in whole.state_dict().items()}
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "official.pth")
    cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "official.pth"), "prefix": "backbone."}
    model = MODELS.build({"type": "BlockForge", "spec": "poolformer_s12", "overrides": small, "init_cfg": cfg})
    model.init_weights()
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.model.state_dict().items())


def test_weights_without_the_prefix(tmp_path: Path) -> None:
    torch.save(bf.build(SPEC).state_dict(), tmp_path / "own.pth")
    model = build(init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "own.pth"), "prefix": "backbone."})
    with pytest.raises(bf.WeightsError, match=r"no name begins with 'backbone\.'"):
        model.init_weights()


def test_other_init_cfg_goes_to_mmengine() -> None:
    model = build(init_cfg={"type": "Constant", "layer": "LayerNorm", "val": 0.5, "bias": 0.25})
    model.init_weights()
    norm = next(m for m in model.modules() if isinstance(m, nn.LayerNorm))
    assert (norm.weight == 0.5).all()


def test_unknown_spec() -> None:
    with pytest.raises(bf.SpecError, match="did you mean 'smt_t'"):
        MODELS.build({"type": "BlockForge", "spec": "smt_tt"})


@pytest.mark.parametrize("what", ["mask_rcnn", "upernet"])
def test_configs_of_the_docs(what: str) -> None:
    """The backbone builds, and gives the channels that the config tells neck and heads."""
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
    (text,) = [part.split("```")[0] for part in page.split("```py\n")[1:] if f"::{what}/" in part.split("```")[0]]
    config: dict[str, Any] = {}
    exec(text, config)
    assert config["custom_imports"]["imports"] == ["blockforge.integrations.mmengine"]
    model = config["model"]
    assert model["backbone"].pop("_delete_")
    backbone = MODELS.build(model["backbone"])
    assert (model.get("neck") or model["decode_head"])["in_channels"] == backbone.out_channels
    assert model.get("auxiliary_head", {"in_channels": 256})["in_channels"] == backbone.out_channels[2]
