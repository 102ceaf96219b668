"""VSSD's official layout (github YuHengsss/VSSD)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from blockforge.weights.official import Family, register

_MIXER = {
    "op.gate": "attn.gate",
    "op.fc": "attn.fc",
    "op.fc_dt": "attn.fc_dt",
    "op.conv": "attn.conv2d",
    "op.norm": "attn.norm",
    "op.proj": "attn.out_proj",
    "op": "attn",
    "norm": "norm1",
}
_LAYER = {
    "dwconv.op": "cpe1",
    "dwconv_2.op": "cpe2",
    "attention.norm": "norm1",
    "attention.op.qkv": "attn.to_qkv",
    "attention.op.proj": "attn.to_out",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
    **{f"{op}.{own}": official for op in ("nc_ssd", "ssd", "bi_ssd") for own, official in _MIXER.items()},
}
_STEM = {
    "entry.0": "conv1.conv",
    "entry.1": "conv1.norm",
    "branch.0": "conv2.0.conv",
    "branch.1": "conv2.0.norm",
    "branch.3": "conv2.1.conv",
    "branch.4": "conv2.1.norm",
    "widen.0": "conv3.0.conv",
    "widen.1": "conv3.0.norm",
    "narrow.0": "conv3.1.conv",
    "narrow.1": "conv3.1.norm",
    "0": "conv1.conv",  # the ablation's stem of one convolution
    "1": "conv1.norm",
    "3": "norm",
}
# The ablation's plain downsampling has its norm where this one has its second convolution: see `_prepare`.
_DOWNSAMPLE = {"0": "conv.0.conv", "2": "conv.1.conv", "4": "conv.2.conv", "5": "conv.2.norm"}


def _sources(key: str) -> tuple[str, ...] | None:
    """Our key -> official key."""
    owner, _, leaf = key.rpartition(".")
    if owner in ("head.norm", "head.fc"):
        return (f"{owner.removeprefix('head.').replace('fc', 'head')}.{leaf}",)
    if owner.startswith("stem.") and (name := _STEM.get(owner.removeprefix("stem."))):
        return (f"patch_embed.{name}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.(\d)", owner):
        return (f"layers.{int(match[1]) - 1}.downsample.{_DOWNSAMPLE[match[2]]}.{leaf}",)
    if (match := re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.(.+)", owner)) and match[3] in _LAYER:
        return (f"layers.{match[1]}.blocks.{match[2]}.{_LAYER[match[3]]}.{leaf}",)
    return None


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split each fused projection into gate, what is convolved, and steps; give both kinds of downsampling
    one layout."""
    prepared = {}
    for key, value in state.items():
        mixer = key.removesuffix("in_proj.weight")
        sized = [f"{mixer}{name}" for name in ("norm.weight", "conv2d.weight", "A_log")]
        if mixer != key and all(name in state for name in sized):
            ends = torch.tensor([state[name].shape[0] for name in sized[:2]]).cumsum(0).tolist()
            for name, part in zip(("gate", "fc", "fc_dt"), value.tensor_split(ends), strict=True):
                prepared[f"{mixer}{name}.weight"] = part
        else:
            prepared[key.replace(".downsample.norm.", ".downsample.conv.1.conv.")] = value
    return prepared


def _matches(keys: set[str]) -> bool:
    block = "layers.0.blocks.0."
    return f"{block}cpe1.weight" in keys and not keys.isdisjoint(
        {f"{block}attn.in_proj.weight", f"{block}attn.to_qkv.weight"}
    )


VSSD = register(Family("vssd", _matches, _sources, _prepare))
