"""The smallest network that learns something, and the smallest space: one layer on grey images of 8x8."""

from __future__ import annotations

from typing import Any


def small_net(dim: int | dict[str, Any] = 8, num_classes: int = 2, name: str = "small") -> dict[str, Any]:
    """A spec; `dim` may be a hole."""
    return {
        "blockforge": 1,
        "name": name,
        "input": {"channels": 1, "size": 8},
        "num_classes": num_classes,
        "blocks": {"b": [{"op": "mlp", "mlp_ratio": 1, "norm": "layer_norm"}]},
        "stem": {"op": "patch_embed", "patch": 4},
        "stages": [{"dim": dim, "depth": 1, "layers": "b"}],
        "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
    }
