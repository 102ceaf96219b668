"""A small network that is brought to budgets."""

from __future__ import annotations

from typing import Any

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "small",
    "input": {"channels": 1, "size": 16},
    "num_classes": 10,
    "defaults": {"norm": "layer_norm"},
    "blocks": {
        "attn": [{"op": "attention", "num_heads": 2}, {"op": "mlp", "mlp_ratio": 2}],
        "conv": [{"op": "dwconv"}, {"op": "conv_mlp", "mlp_ratio": 2}],
    },
    "stem": {"op": "patch_embed", "patch": 4},
    "downsample": {"op": "patch_merging"},
    "stages": [{"dim": 16, "depth": 2, "layers": "conv"}, {"dim": 24, "depth": 3, "layers": "attn conv attn"}],
    "head": {"op": "classifier", "pool": "avg"},
}
