"""SparX-Mamba's official layout (github LMMMEng/SparX)."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts import vmamba
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_LAYER = {
    **vmamba.SS2D,
    "dwconv.op": "pos_embed",
    "ss2d.skip_scale": "layerscale_1.weight",
    "ss2d.skip_bias": "layerscale_1.bias",
    "aggregate.norm": "norm",
    "aggregate.op.norm": "op.d_norm",
    "aggregate.op.dwconv": "op.d_proj.0",
    "aggregate.op.bn": "op.d_proj.1",
    "aggregate.op.k_in": "op.d_proj.3.k",
    "aggregate.op.v_in": "op.d_proj.3.v",
    "aggregate.op.v.linear": "op.v.0",
    "aggregate.op.v.bn": "op.v.1",
    "aggregate.op.mix": "op.in_proj.0",
    "aggregate.op.proj": "op.in_proj.2",
    "conv_mlp.skip_scale": "layerscale_2.weight",
    "conv_mlp.skip_bias": "layerscale_2.bias",
    "conv_mlp.norm": "norm2",
    "conv_mlp.op.fc1": "mlp.fc1",
    "conv_mlp.op.dwconv": "mlp.dwconv",
    "conv_mlp.op.fc2": "mlp.fc2",
}
for _part in ("q", "k"):
    for _ours, _official in {"reduce": "0.0", "reduce_bn": "0.1", "linear": "1", "bn": "2"}.items():
        _LAYER[f"aggregate.op.{_part}.{_ours}"] = f"op.{_part}.{_official}"
_ROWS = {
    "stem.{i}": "patch_embed.{i}",
    "stages.{s}.downsample.{i}": "layers.{s-1}.downsample.{i}",
    **in_layers(_LAYER, "layers.{s}.blocks.{l}"),
    "out_norms.{s}": "norm.{s}",
    "head.norm": "classifier.0",
    "head.fc": "classifier.3",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys' and values' projections apart."""
    prepared = vmamba.prepare(state)
    for key, value in state.items():
        if match := re.fullmatch(r"(.+\.op\.d_proj\.3)\.(weight|bias)", key):
            del prepared[key]
            for name, half in zip("kv", value.chunk(2), strict=True):
                prepared[f"{match[1]}.{name}.{match[2]}"] = half
    return prepared


SPARX_MAMBA = register(
    Family(
        "sparx_mamba",
        lambda keys: {"layers.0.blocks.0.op.A_logs", "layers.0.blocks.0.pos_embed.weight"} <= keys,
        by_table(_ROWS),
        prepare=_prepare,
        out_norm={"op": "layer_norm", "eps": 1e-6},
    )
)
