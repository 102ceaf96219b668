"""MLP-Mixer's layout in timm (the official code is JAX)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table

_ROWS = {
    "stem.0": "stem.proj",
    "stem.conv": "stem.proj",
    "stages.0.layers.{l}.token_mlp.norm": "blocks.{l}.norm1",
    "stages.0.layers.{l}.token_mlp.op.fc1": "blocks.{l}.mlp_tokens.fc1",
    "stages.0.layers.{l}.token_mlp.op.fc2": "blocks.{l}.mlp_tokens.fc2",
    "stages.0.layers.{l}.mix_positions.norm": "blocks.{l}.norm1",
    "stages.0.layers.{l}.mix_positions.op.linear": "blocks.{l}.mlp_tokens.fc1",
    "stages.0.layers.{l}.mix_positions.op.linear_2": "blocks.{l}.mlp_tokens.fc2",
    "stages.0.layers.{l}.mlp.norm": "blocks.{l}.norm2",
    "stages.0.layers.{l}.mlp.op.fc1": "blocks.{l}.mlp_channels.fc1",
    "stages.0.layers.{l}.mlp.op.fc2": "blocks.{l}.mlp_channels.fc2",
    "head.norm": "norm",
    "head.fc": "head",
    "head.ln": "norm",
    "head.logits": "head",
}

MLP_MIXER = register(Family("mlp_mixer", lambda keys: "blocks.0.mlp_tokens.fc1.weight" in keys, by_table(_ROWS)))
