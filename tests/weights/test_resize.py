"""Weights of another image or window size: position tables and embeddings are resized, and a line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm

import blockforge as bf
from blockforge.blocks.resize import bicubic
from blockforge.saving import save_weights
from blockforge.weights.mismatch import MismatchError

SWIN, DEIT = "specs/narrow/swin.yaml", "deit_s"
SMALL: dict[str, dict[str, Any]] = {SWIN: {}, DEIT: {"stages.0.depth": 1, "input.size": 64}}
CHANGES = [
    (SWIN, {"let.window": 8}),
    (SWIN, {"input.size": 64}),
    (SWIN, {"input.size": 16}),
    (DEIT, {"input.size": 96}),
]


@pytest.mark.parametrize(("spec", "change"), CHANGES, ids=str)
def test_weights_load_at_another_size(
    spec: str, change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = bf.build(spec, SMALL[spec], seed=0)
    save_weights(old, tmp_path / "w.safetensors")
    new = bf.build(spec, {**SMALL[spec], **change}, weights=tmp_path / "w.safetensors")
    kept, found = old.state_dict(), new.state_dict()
    other = [k for k in kept if kept[k].shape != found[k].shape]
    assert other
    assert all(k.endswith(("rel_pos.table", "pos_embed")) for k in other)
    assert all(torch.equal(kept[k], found[k]) for k in kept if k not in other)
    told = capsys.readouterr().err
    assert told.count("resized from another image or window size: ") == 1
    assert other[0] in told


def test_tables_and_embeddings_are_resized_as_timm_does() -> None:
    load_timm()
    from timm.layers import pos_embed
    from timm.layers import pos_embed_rel as rel_pos

    generator = torch.Generator().manual_seed(0)
    module: Any = bf.build(SWIN, {"let.window": 8}).get_submodule("stages.0.layers.0.attention.op.rel_pos")
    table = torch.randn(7 * 7, 2, generator=generator)
    wanted = rel_pos.resize_rel_pos_bias_table_simple(table, (8, 8), (15 * 15, 2))
    torch.testing.assert_close(module.resized("table", table), wanted)
    learnt = torch.randn(1, 1 + 16, 384, generator=generator)
    stem: Any = bf.build(DEIT, {**SMALL[DEIT], "input.size": [96, 80]}).get_submodule("stem")
    wanted = pos_embed.resample_abs_pos_embed(learnt, [6, 5], num_prefix_tokens=1)
    torch.testing.assert_close(stem.resized("pos_embed", learnt), wanted[0])
    assert torch.equal(stem.resized("pos_embed", learnt)[0], learnt[0, 0])


def test_a_constant_table_stays_constant() -> None:
    assert torch.allclose(bicubic(torch.full((9, 2), 0.5), (3, 3), (7, 5)), torch.full((35, 2), 0.5))


def test_official_checkpoints_are_resized(capsys: pytest.CaptureFixture[str]) -> None:
    timm = load_timm()
    theirs = timm.create_model("vit_small_patch16_224", img_size=64, depth=1, num_classes=5).state_dict()
    change = {"stages.0.depth": 1, "num_classes": 5}
    ours = bf.from_official(DEIT, theirs, {**change, "input.size": 96}).eval()
    assert "resized" in capsys.readouterr().err
    model = timm.create_model("vit_small_patch16_224", img_size=96, depth=1, num_classes=5).eval()
    from timm.models.vision_transformer import checkpoint_filter_fn

    model.load_state_dict(checkpoint_filter_fn(theirs, model))
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x), rtol=1e-4, atol=1e-5)


def test_timm_loads_a_checkpoint_for_another_image_size(tmp_path: Path) -> None:
    timm = load_timm()
    import blockforge.timm  # noqa: F401

    old = bf.build(SWIN, seed=0)
    save_weights(old, tmp_path / "w.safetensors")
    given = {"pretrained_cfg_overlay": {"file": str(tmp_path / "w.safetensors")}, "spec": SWIN, "num_classes": 10}
    new = timm.create_model("blockforge", pretrained=True, img_size=64, in_chans=1, **given)
    found = new.state_dict()
    assert sum(v.shape != found[k].shape for k, v in old.state_dict().items()) > 0
    assert all(torch.equal(v, found[k]) for k, v in old.state_dict().items() if v.shape == found[k].shape)


@pytest.mark.parametrize("spec", ["strip_mlp_t_light", "mlp_mixer_b16"])
def test_a_misfit_of_the_size_alone_says_so(spec: str, tmp_path: Path) -> None:
    change: dict[str, Any] = {"stages.0.depth": 1, "num_classes": 3}
    if spec == "strip_mlp_t_light":
        change |= {f"stages.{i}.depth": 1 for i in range(4)}
    save_weights(bf.build(spec, {**change, "input.size": 64}), tmp_path / "w.safetensors")
    with pytest.raises(MismatchError, match=r"images of another size than 96x96.*set input.size=64"):
        bf.build(spec, {**change, "input.size": 96}, weights=tmp_path / "w.safetensors")
