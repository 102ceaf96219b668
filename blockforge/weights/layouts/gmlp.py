"""gMLP's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_LAYER = {
    "gated.norm": "norm",
    "gated.op.linear": "mlp_channels.fc1",
    "gated.op.split.gate.layer_norm": "mlp_channels.gate.norm",
    "gated.op.split.gate.across.linear": "mlp_channels.gate.proj",
    "gated.op.linear_2": "mlp_channels.fc2",
}
_ROWS = {"stem.conv": "stem.proj", **in_layers(_LAYER, "blocks.{l}"), "head.ln": "norm", "head.logits": "head"}

_MARKS = {"stem.proj.weight", "blocks.0.mlp_channels.gate.proj.weight"}

GMLP = register(Family("gmlp", lambda keys: keys >= _MARKS, by_table(_ROWS)))
