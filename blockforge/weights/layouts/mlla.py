"""MLLA's official layout (github LeapLabTHU/MLLA), and what of it VSSD shares."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

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
}
_DOWNSAMPLE = {"0": "0.conv", "2": "1.conv", "4": "2.conv", "5": "2.norm"}
AROUND_LAYERS = {
    **{f"stem.{ours}": f"patch_embed.{theirs}" for ours, theirs in _STEM.items()},
    **{
        f"stages.{{s}}.downsample.{ours}": f"layers.{{s-1}}.downsample.conv.{theirs}"
        for ours, theirs in _DOWNSAMPLE.items()
    },
    "head.norm": "norm",
    "head.fc": "head",
}
_ROWS = {
    **AROUND_LAYERS,
    **in_layers(
        {
            "dwconv.op": "cpe1",
            "linear_attention.norm": "norm1",
            "linear_attention.op.gate": "act_proj",
            "linear_attention.op.fc": "in_proj",
            "linear_attention.op.conv": "dwc",
            "linear_attention.op.qkv": "attn.qk",
            "linear_attention.op.local_conv": "attn.lepe",
            "linear_attention.op.proj": "out_proj",
            "dwconv_2.op": "cpe2",
            "mlp.norm": "norm2",
            "mlp.op.fc1": "mlp.fc1",
            "mlp.op.fc2": "mlp.fc2",
        },
        "layers.{s}.blocks.{l}",
    ),
}

MLLA = register(
    Family(
        "mlla",
        lambda keys: "layers.0.blocks.0.attn.lepe.weight" in keys,
        by_table(_ROWS),
        computed=lambda key: key.endswith(".rope.rotations"),
    )
)
