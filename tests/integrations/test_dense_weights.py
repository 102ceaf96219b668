"""Checkpoints of dense backbones: no classifier, and norms of their own behind the stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blockforge as bf
from blockforge.integrations.weights import load_features
from blockforge.weights.official import families


@pytest.mark.parametrize(("name", "norm"), [("vmamba", "outnorm"), ("swin", "norm")])
def test_dense_checkpoints_load_and_say_what_is_left_out(
    name: str, norm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = (bf.build(f"specs/narrow/{name}.yaml", features_only=True, seed=seed).eval() for seed in (0, 1))
    sources, state = families()[name].sources, {}
    for key, value in model.state_dict().items():
        (official,) = sources(key) or (key,)
        state[official] = value
    if name == "vmamba":  # the directions of a scan lie in one tensor there
        state = _vmamba(state)
    for stage, width in enumerate(model.feature_info.channels()):
        state |= {f"{norm}{stage}.weight": torch.ones(width), f"{norm}{stage}.bias": torch.zeros(width)}
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "dense.pth")
    load_features(other, tmp_path / "dense.pth", "backbone.")
    x = torch.randn(1, other.in_chans, *other.arch.plan.input.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in zip(other(x), model(x), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert f"left out 8 tensors that the network has no place for: {norm}0.weight" in capsys.readouterr().err


def _vmamba(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = dict(state)
    for key, weight in state.items():
        if key.endswith("dt_projs_weight.0"):
            owner = key.removesuffix("dt_projs_weight.0")
            count = len(state[f"{owner}dt_projs_bias"])
            found[f"{owner}dt_projs_weight"] = torch.stack(
                [found.pop(f"{owner}dt_projs_weight.{k}") for k in range(count)]
            )
            inner = weight.shape[0]
            found[f"{owner}x_proj_weight"] = state[f"{owner}x_proj_weight"].reshape(count, -1, inner)
            for name in ("A_logs", "Ds"):
                found[owner + name] = state[owner + name].flatten(0, 1)
    return found
