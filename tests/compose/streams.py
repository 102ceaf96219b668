"""Small networks whose stages form a graph, for tests."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
SMOOTH = {"op": "conv_bn", "kernel_size": 3}
UP = {"op": "resize", "scale": 2}


def network(*stages: Tree, **more: Any) -> Tree:
    """Three stages of an encoder, 16x16, 8x8 and 4x4 of 8, 16 and 24 channels, and what stands behind them."""
    return {
        "blockforge": 1,
        "name": "streams",
        "use": ["std"],
        "input": {"size": 32},
        "num_classes": 5,
        "drop_path": 0.2,
        "blocks": {"b": [{"op": "dwconv", "norm": "batch_norm"}, {"op": "mlp", "norm": "layer_norm"}]},
        "stem": {"op": "conv_bn", "kernel_size": 3, "stride": 2},
        "downsample": {"op": "conv_bn", "kernel_size": 3, "stride": 2},
        "stages": [
            {"dim": 8, "depth": 1, "layers": "b"},
            {"dim": 16, "depth": 2, "layers": "b"},
            {"dim": 24, "depth": 1, "layers": "b"},
            *stages,
        ],
        "head": ["global_pool", "logits"],
        **more,
    }


def unet(**more: Any) -> Tree:
    """A decoder that reads stages through ops, and some as they are."""
    return network(
        {"name": "up1", "dim": 16, "from": [{"from": 2, "op": UP}, 1], "join": "concat", "layers": [SMOOTH]},
        {"name": "up0", "dim": 8, "from": [{"from": "up1", "op": UP}, 0], "join": "concat", "layers": [SMOOTH]},
        **more,
    )


def exchange(**more: Any) -> Tree:
    """Two streams that exchange their maps, and meet."""
    down = {"op": "conv_bn", "kernel_size": 3, "stride": 2, "act": "none"}
    up = ["layer_norm", {"op": "linear", "dim": "$out"}, UP]
    return network(
        {"name": "a", "dim": 8, "from": 0, "depth": 1, "layers": "b"},
        {
            "name": "b",
            "dim": 16,
            "from": {"from": "a", "op": down},
            "depth": 1,
            "layers": "b",
            "stage_norm": "layer_norm",
        },
        {"name": "ax", "dim": 8, "from": ["a", {"from": "b", "op": up}, {"from": 1, "op": up}], "layers": ["relu"]},
        {"name": "bx", "dim": 16, "from": [{"from": "a", "op": down}, "b", 1]},
        {
            "name": "meet",
            "dim": 24,
            "from": ["ax", "bx", 2],
            "join": {"op": "concat", "dim": "$out", "resize": "bilinear"},
        },
        **more,
    )


def two_streams(**more: Any) -> Tree:
    """Two ways from the image, without a stem."""
    tree = network(**more)
    patches = {"op": "conv", "dim": "$out", "kernel_size": 4, "stride": 4}
    return tree | {
        "stem": "none",
        "downsample": "none",
        "stages": [
            {"name": "fine", "dim": 8, "from": {"from": "input", "op": patches}, "depth": 2, "layers": "b"},
            {
                "name": "coarse",
                "dim": 16,
                "from": {"from": "input", "op": {**patches, "stride": 8}},
                "layers": "b",
                "depth": 1,
            },
            {"dim": 16, "from": ["fine", "coarse"], "join": {"op": "concat", "resize": "nearest"}, "layers": [SMOOTH]},
        ],
    }


NETWORKS = {"unet": unet, "exchange": exchange, "two_streams": two_streams}
