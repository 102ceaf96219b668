"""sMLPNet's official layout (github microsoft/SPACH)."""

from __future__ import annotations

import itertools
import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_ROWS = {
    "stem.0": "to_patch_embedding.0.0",
    "stages.{s}.downsample.1": "to_patch_embedding.{s}.0",
    **in_layers(
        {
            "sparse_mlp.norm": "token_mix.0.conv_merge.BN",
            "sparse_mlp.op.dwconv": "token_mix.0.conv_merge.Conv",
            "sparse_mlp.op.bn": "token_mix.1.BN",
            "sparse_mlp.op.rows": "token_mix.1.proj_h",
            "sparse_mlp.op.columns": "token_mix.1.proh_w",
            "sparse_mlp.op.fuse": "token_mix.1.fuse",
            "mlp.norm": "channel_mix.1",
            "mlp.op.fc1": "channel_mix.2.net.0",
            "mlp.op.fc2": "channel_mix.2.net.3",
        },
        "layers.{s}.{l}",
    ),
    "head.norm": "batch_norm",
    "head.fc": "mlp_head.0",
}
_FLAT = re.compile(r"(token_mix|channel_mix)\.(\d+)\.(.+)")


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers within their stages: they are one list, and a stage is a run of equal widths."""
    widths: list[int] = []
    while (norm := state.get(f"channel_mix.{len(widths)}.1.weight")) is not None:
        widths.append(len(norm))
    places = [
        f"{stage}.{layer}" for stage, (_, run) in enumerate(itertools.groupby(widths)) for layer, _ in enumerate(run)
    ]
    prepared = {}
    for key, value in state.items():
        if (match := _FLAT.fullmatch(key)) and int(match[2]) < len(places):
            key = f"layers.{places[int(match[2])]}.{match[1]}.{match[3]}"
        prepared[key] = value
    return prepared


SMLP = register(Family("smlp", lambda keys: "token_mix.0.1.proj_h.weight" in keys, by_table(_ROWS), _prepare))
