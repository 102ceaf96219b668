"""VSSD's official layout (github YuHengsss/VSSD)."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.mlla import AROUND_LAYERS
from blockforge.weights.layouts.tensor_names import by_table, in_layers

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
_ROWS = {
    **AROUND_LAYERS,
    "out_norms.{s}": "outnorm{s}",
    "stem.0": "patch_embed.conv1.conv",  # the ablation's stem of one convolution
    "stem.1": "patch_embed.conv1.norm",
    "stem.3": "patch_embed.norm",
    **in_layers(_LAYER, "layers.{s}.blocks.{l}"),
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split each fused projection into gate, what is convolved, and steps; give both kinds of downsampling
    one layout: the plain one of the ablation has its norm where the other has its second convolution."""
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


VSSD = register(Family("vssd", _matches, by_table(_ROWS), _prepare))
