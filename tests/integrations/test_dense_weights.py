"""Checkpoints of dense backbones: no classifier, and norms of their own behind the stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm
from torch import Tensor
from torch.nn import functional as F

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.weights.family import FAMILIES

State = dict[str, Tensor]
NARROW = Path(__file__).parents[2] / "specs" / "narrow"
DENSE = {  # names, and the epsilon, of the output norms in the official dense backbones
    "swin": ("norm{}", 1e-5),
    "vssd": ("outnorm{}", 1e-5),
    "mambavision": ("outnorm{}", 1e-5),
    "vmamba": ("outnorm{}", 1e-5),
    "convnext": ("norm{}", 1e-6),
    "sparx_mamba": ("norm.{}", 1e-6),
}


def option(name: str) -> Any:
    eps = DENSE[name][1]
    return "layer_norm" if eps == 1e-5 else {"op": "layer_norm", "eps": eps}


def spec(name: str) -> str:
    return str(NARROW / f"{name}.yaml")


def images(model: Backbone) -> Tensor:
    return torch.randn(2, model.in_chans, *model.arch.plan.input.size, generator=torch.Generator().manual_seed(0))


def official(name: str, model: Backbone) -> State:
    """A model's tensors under the official names, as the official code holds them."""
    state: State = {}
    for key, value in model.state_dict().items():
        names = FAMILIES[name].sources(key)
        assert names is not None, key
        state |= dict(zip(names, value.chunk(len(names)) if len(names) > 1 else [value], strict=True))
    return _fused(state)


def _fused(state: State) -> State:
    """Tensors that the official code holds as one."""
    found = dict(state)
    for key, value in state.items():
        owner = key.rpartition(".")[0].removesuffix(".dt_projs_weight")
        if key.endswith(".dt_projs_weight.0"):  # the directions of a scan
            count = len(state[f"{owner}.dt_projs_bias"])
            steps = [found.pop(f"{owner}.dt_projs_weight.{k}") for k in range(count)]
            found[f"{owner}.dt_projs_weight"] = torch.stack(steps)
            found[f"{owner}.x_proj_weight"] = state[f"{owner}.x_proj_weight"].reshape(count, -1, value.shape[0])
            for name in ("A_logs", "Ds"):
                found[f"{owner}.{name}"] = state[f"{owner}.{name}"].flatten(0, 1)
        elif key.endswith(".attn.gate.weight"):  # the projections of an SSD mixer
            parts = [found.pop(key.replace("gate", part)) for part in ("gate", "fc", "fc_dt")]
            found[key.replace("gate", "in_proj")] = torch.cat(parts)
        elif ".op.d_proj.3.k." in key:  # keys and values
            found[key.replace(".3.k.", ".3.")] = torch.cat([found.pop(key), found.pop(key.replace(".3.k.", ".3.v."))])
    return found


def norms(name: str, widths: list[int]) -> State:
    """Output norms under the official names."""
    draw, found = torch.Generator().manual_seed(5), {}
    for stage, width in enumerate(widths):
        at = DENSE[name][0].format(stage)
        found |= {f"{at}.weight": torch.rand(width, generator=draw) + 0.5}
        found |= {f"{at}.bias": torch.randn(width, generator=draw)}
    return found


def by_hand(name: str, maps: list[Tensor], held: State, stages: list[int]) -> list[Tensor]:
    """The norms of a checkpoint applied to a model's own maps_BCHW."""
    pattern, eps = DENSE[name]
    named = [pattern.format(s) for s in stages]
    return [
        F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], held[f"{at}.weight"], held[f"{at}.bias"], eps).permute(
            0, 3, 1, 2
        )
        for x, at in zip(maps, named, strict=True)
    ]


def save(state: State, file: Path) -> Path:
    """As a trained detector is saved."""
    whole = {f"backbone.{k}": v for k, v in state.items()}
    torch.save({"state_dict": {**whole, "neck.lateral.weight": torch.ones(1)}, "meta": {"epoch": 12}}, file)
    return file


def by_build(name: str, file: Path, **given: Any) -> Any:
    return bf.build(spec(name), features_only=True, weights=file, **given)


def by_timm(name: str, file: Path, **given: Any) -> Any:
    timm = load_timm()
    import blockforge.timm  # noqa: F401  (registers)

    overlay = {"file": str(file)}
    return timm.create_model(
        "blockforge", spec=spec(name), pretrained=True, pretrained_cfg_overlay=overlay, features_only=True, in_chans=1,
        **given,
    )  # fmt: skip


def by_mmengine(name: str, file: Path, **given: Any) -> Any:
    how = "not installed: pip install --no-deps -r tests/no-deps-requirements.txt"
    registry = pytest.importorskip("mmengine.registry", reason=how)
    import blockforge.integrations.mmengine  # noqa: F401  (registers)

    cfg = {"type": "Pretrained", "checkpoint": str(file), "prefix": "backbone."}
    model = registry.MODELS.build({"type": "BlockForge", "spec": spec(name), "init_cfg": cfg, **given})
    model.init_weights()
    return model


WAYS: dict[str, Callable[..., Any]] = {"build": by_build, "timm": by_timm, "mmengine": by_mmengine}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DENSE)
def test_output_norms_of_dense_checkpoints(name: str, way: str, tmp_path: Path) -> None:
    source = bf.build(spec(name), features_only=True, seed=0).eval()
    held = norms(name, source.feature_info.channels())
    file = save({**official(name, source), **held}, tmp_path / "dense.pth")
    model = WAYS[way](name, file, out_norm=option(name)).eval()
    x = images(source)
    with torch.no_grad():
        for ours, expected in zip(model(x), by_hand(name, source(x), held, [0, 1, 2, 3]), strict=True):
            torch.testing.assert_close(ours, expected)
            assert ours.std() > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_some_maps_of_a_dense_checkpoint(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bf.build(spec("vmamba"), features_only=True, seed=0).eval()
    held = norms("vmamba", source.feature_info.channels())
    file = save({**official("vmamba", source), **held}, tmp_path / "dense.pth")
    model = WAYS[way]("vmamba", file, out_norm="layer_norm", out_indices=(0, 2)).eval()
    x = images(source)
    with torch.no_grad():
        maps = source(x)
        for ours, expected in zip(model(x), by_hand("vmamba", [maps[0], maps[2]], held, [0, 2]), strict=True):
            torch.testing.assert_close(ours, expected)
    said = capsys.readouterr().err
    last = [k for k in official("vmamba", source) if k.startswith(("layers.3.", "layers.2.downsample."))]
    scans = sum(3 for k in last if k.endswith(".dt_projs_weight"))  # whose four directions are ours one by one
    assert f"left out {len(last) + scans + 4} tensors that the network has no place for: layers.2.downsample" in said
    assert "out_norm=" not in said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DENSE)
def test_without_the_option_a_line_names_the_norms_and_the_option(
    name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bf.build(spec(name), features_only=True, seed=0).eval()
    held = norms(name, source.feature_info.channels())
    file = save({**official(name, source), **held}, tmp_path / "dense.pth")
    model = WAYS[way](name, file).eval()
    x = images(source)
    with torch.no_grad():
        for ours, theirs in zip(model(x), source(x), strict=True):
            torch.testing.assert_close(ours, theirs)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no place for" in line]
    assert f"left out 8 tensors that the network has no place for: {', '.join(held)};" in line
    assert line.endswith(f"; out_norm={option(name)!r} gives the maps these norms")


def test_batch_norms_behind_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VMamba's and MambaVision's `norm_layer="bn"`."""
    source = bf.build(spec("mambavision"), features_only=True, seed=0).eval()
    state, layers = official("mambavision", source), []
    for i, width in enumerate(source.feature_info.channels()):
        layer = torch.nn.BatchNorm2d(width).eval()
        for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            value.data.uniform_(0.5, 1.5)
        layers.append(layer)
        state |= {f"outnorm{i}.{k}": v for k, v in layer.state_dict().items()}
    file = save(state, tmp_path / "dense.pth")
    model = by_build("mambavision", file, out_norm="batch_norm").eval()
    x = images(source)
    with torch.no_grad():
        for ours, layer, theirs in zip(model(x), layers, source(x), strict=True):
            torch.testing.assert_close(ours, layer(theirs))
    by_build("mambavision", file)
    assert "left out 20 tensors" in (said := capsys.readouterr().err)
    assert "out_norm='batch_norm' gives the maps these norms" in said
    with pytest.raises(bf.WeightsError, match=r"left over: outnorm0\.running_mean"):
        by_build("mambavision", file, out_norm="layer_norm")


def test_norms_that_a_checkpoint_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None: they start as they were made, and a line says so. Some: it is the checkpoint of another backbone."""
    source = bf.build(spec("swin"), features_only=True, seed=0).eval()
    held = norms("swin", source.feature_info.channels())
    for state in (official("swin", source), source.state_dict()):
        model = by_build("swin", save(state, tmp_path / "plain.pth"), out_norm="layer_norm").eval()
        said = capsys.readouterr().err
        assert "the checkpoint has no output norms: as they were made stay out_norms.0.weight, out_norms.0.bias" in said
        x = images(source)
        with torch.no_grad():
            for ours, theirs in zip(model(x), source(x), strict=True):
                expected = F.layer_norm(theirs.permute(0, 2, 3, 1), theirs.shape[1:2])
                torch.testing.assert_close(ours.permute(0, 2, 3, 1), expected)
    del held["norm0.weight"], held["norm0.bias"]
    file = save({**official("swin", source), **held}, tmp_path / "three.pth")
    with pytest.raises(bf.WeightsError, match=r"2 missing\n  missing: norm0\.weight \(for out_norms\.0\.weight\)"):
        by_build("swin", file, out_norm="layer_norm")


def test_weights_of_ours_with_output_norms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bf.build(spec("swin"), features_only=True, out_norm="layer_norm", seed=0)
    torch.nn.init.uniform_(source.get_submodule("out_norms.1").weight)
    file = save(source.state_dict(), tmp_path / "own.pth")
    again = by_build("swin", file, out_norm="layer_norm")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in source.state_dict().items())
    assert "norms" not in capsys.readouterr().err
    plain = by_build("swin", file)
    assert not any(k.startswith("out_norms") for k in plain.state_dict())
    said = capsys.readouterr().err
    assert "left out 8 tensors that the network has no place for: out_norms.0.weight" in said
    assert said.rstrip().endswith("; out_norm='layer_norm' gives the maps these norms")


@pytest.mark.parametrize("layout", ["ours", "official"])
@pytest.mark.parametrize("name", ["swin", "vssd", "mambavision", "vmamba"])
def test_a_classifier_s_checkpoint_fills_its_backbone(
    name: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = bf.build(spec(name), num_classes=7, seed=3).eval()
    torch.save(whole.state_dict() if layout == "ours" else official(name, whole), tmp_path / "whole.pth")
    model = bf.build(spec(name), features_only=True, weights=tmp_path / "whole.pth").eval()
    x = images(whole)
    with torch.no_grad():
        for ours, theirs in zip(model(x), whole.forward_intermediates(x, intermediates_only=True), strict=True):
            torch.testing.assert_close(ours, theirs)
    head = [k for k in whole.state_dict() if k.startswith("head.")]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no place for" in line]
    names = head if layout == "ours" else [(FAMILIES[name].sources(k) or ("",))[0] for k in head]
    assert line.endswith(f"left out {len(head)} tensors that the network has no place for: {', '.join(names)}")


@pytest.mark.parametrize("layout", ["ours", "official"])
def test_a_deeper_network_s_checkpoint_is_refused(layout: str, tmp_path: Path) -> None:
    """What the whole network has no place for is not left out."""
    whole = bf.build(spec("vmamba"), {"stages.1.depth": 3}, seed=3)
    torch.save(whole.state_dict() if layout == "ours" else official("vmamba", whole), tmp_path / "whole.pth")
    extra = r"stages\.1\.layers\.2\." if layout == "ours" else r"layers\.1\.blocks\.2\."
    with pytest.raises(bf.WeightsError, match=rf"\d+ left over\n  left over: {extra}"):
        bf.build(spec("vmamba"), {"stages.1.depth": 2}, features_only=True, weights=tmp_path / "whole.pth")
