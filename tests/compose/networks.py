"""Small networks of composed blocks, for tests."""

from __future__ import annotations

from typing import Any


def linear(dim: Any = "$out", **more: Any) -> dict[str, Any]:
    return {"op": "linear", "dim": dim, **more}


def dwconv(kernel_size: Any = 3, **more: Any) -> dict[str, Any]:
    return {"op": "dwconv", "kernel_size": kernel_size, **more}


def network(*branches: Any, **more: Any) -> dict[str, Any]:
    """A spec of two stages whose one block has these branches; its stem, downsample and head are composed too."""
    return {
        "blockforge": 1,
        "name": "composed",
        "input": {"size": [40, 56]},
        "num_classes": 10,
        "defaults": {"norm": "layer_norm"},
        "blocks": {"b": list(branches)},
        "stem": [{"op": "conv", "dim": "$out", "kernel_size": 4, "stride": 4}, "layer_norm"],
        "downsample": ["layer_norm", {"op": "conv", "dim": "$out", "kernel_size": 2, "stride": 2}],
        "stages": [{"dim": 16, "depth": 1, "layers": "b"}, {"dim": 32, "depth": 2, "layers": "b"}],
        "head": ["global_pool", "layer_norm", "logits"],
        **more,
    }
