"""PoolFormer's layouts: official (github sail-sg/poolformer) and timm's."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers


def _layer(scale: str) -> dict[str, str]:
    """What stands in a layer; `scale` names its LayerScale, but for the number in it."""
    return {
        "pooling.norm": "norm1",
        "pooling.scale": scale.format(1),
        "mlp.norm": "norm2",
        "mlp.scale": scale.format(2),
        "mlp.op.fc1": "mlp.fc1",
        "mlp.op.fc2": "mlp.fc2",
    }


_OFFICIAL = {  # stages and what stands between them are one list
    "stem.0": "patch_embed.proj",
    **{f"stages.{s}.downsample.0": f"network.{2 * s - 1}.proj" for s in range(1, 4)},
    **{
        f"stages.{s}.layers.{{l}}.{ours}": f"network.{2 * s}.{{l}}.{theirs}"
        for s in range(4)
        for ours, theirs in _layer("layer_scale_{}").items()
    },
    "head.norm": "norm",
    "head.pooled_norm": "norm",
    "head.fc": "head",
}
_TIMM = {
    "stem.0": "stem.conv",
    "stages.{s}.downsample.0": "stages.{s}.downsample.conv",
    **in_layers(_layer("layer_scale{}.scale"), "stages.{s}.blocks.{l}"),
    "head.norm": "head.norm",
    "head.pooled_norm": "head.norm",
    "head.fc": "head.fc",
}

POOLFORMER = register(Family("poolformer", lambda keys: "network.0.0.layer_scale_1" in keys, by_table(_OFFICIAL)))
POOLFORMER_TIMM = register(
    Family("poolformer_timm", lambda keys: "stages.0.blocks.0.layer_scale1.scale" in keys, by_table(_TIMM))
)
