"""Published truth: networks of ViT-Bench-101 as specs, with the accuracies that were measured by its authors.

A point's `arch` is turned into a spec by one rule for each space, so that points that are not in our table can be
scored too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge.errors import BlockforgeError, did_you_mean

TABLES = Path(__file__).parent / "tables"
"""What was measured."""
_NORM = {"op": "layer_norm", "eps": 1e-6}
_AUTOFORMER_HEAD_DIM = 64
"""Queries, keys and values are as wide as the heads together, not as the layer."""


@dataclass(frozen=True)
class Point:
    """A network and what it reached: accuracies in percent by the name of the task."""

    space: str
    spec: dict[str, Any]
    accuracies: dict[str, float]


def read_points(file: Path | None = None) -> list[Point]:
    """The points of the table that is here, or of another one of its form. Raises: BlockforgeError."""
    source = file if file is not None else TABLES / "vit_bench.json"
    try:
        rows = json.loads(source.read_text(encoding="utf-8"))["rows"]
        return [point(row, f"point_{i:03d}") for i, row in enumerate(rows)]
    except (OSError, ValueError, TypeError, KeyError) as e:
        text = f"{source} is not a table of points: {str(e) or type(e).__name__}"
        raise BlockforgeError(
            f"{text}\n  hint: {{rows: [{{space: ..., arch: ..., TASK: accuracy}}]}} as JSON"
        ) from None


def point(row: Mapping[str, Any], name: str) -> Point:
    """A row of the table: `space`, `arch`, and the accuracies."""
    accuracies = {key: float(v) for key, v in row.items() if key not in ("space", "arch") and v is not None}
    return Point(row["space"], spec_of(row["space"], row["arch"], name), accuracies)


def spec_of(space: str, arch: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The spec of an architecture of a space, for images of 224.

    Raises: BlockforgeError if the space is not known.
    """
    if space not in SPACES:
        raise BlockforgeError(f"no published space '{space}'\n  hint: {did_you_mean(space, SPACES, 'spaces')}")
    return {
        "blockforge": 1,
        "name": name,
        "about": {"space": space, "source": "ViT-Bench-101 (Auto-Prox, AAAI 2024)"},
        "input": {"size": 224},
        "num_classes": 100,
        "defaults": {"norm": dict(_NORM)},
        "head": {"op": "classifier", "pool": "token", "pooled_norm": dict(_NORM)},
        **SPACES[space](arch),
    }


def autoformer(arch: Mapping[str, Any]) -> dict[str, Any]:
    """A plain vision transformer whose heads and MLP ratio change from layer to layer. AutoFormer's relative
    positions (two tables a layer, no multiply-adds to speak of) are left out."""
    layers = list(zip(arch["num_heads"], arch["mlp_ratio"], strict=True))[: arch["depth"]]
    names = {layer: f"h{layer[0]}_r{layer[1]:g}".replace(".", "p") for layer in layers}
    blocks = {
        names[heads, ratio]: [
            {"op": "attention", "num_heads": heads, "head_dim": _AUTOFORMER_HEAD_DIM},
            {"op": "mlp", "mlp_ratio": ratio},
        ]
        for heads, ratio in dict.fromkeys(layers)
    }
    pattern = " ".join(names[layer] for layer in layers)
    return {
        "blocks": blocks,
        "stem": {"op": "vit_stem", "patch": 16},
        "stages": [{"dim": arch["hidden_dim"], "depth": len(layers), "layers": pattern}],
    }


def pit(arch: Mapping[str, Any]) -> dict[str, Any]:
    """Overlapping patches, three stages, head_dim the same in all: the width follows the heads."""
    ratio, heads, depth = arch["mlp_ratio"], arch["num_heads"], arch["depth"]
    blocks = {"vit": [{"op": "attention", "num_heads": "$num_heads"}, {"op": "mlp", "mlp_ratio": ratio}]}
    base: Sequence[int] = (
        arch["base_dim"] if isinstance(arch["base_dim"], Sequence) else [arch["base_dim"]] * len(depth)
    )
    return {
        "blocks": blocks,
        "stem": {"op": "vit_stem", "patch": 16, "stride": 8},
        "downsample": {"op": "conv_head_pooling", "class_token": True},
        "stages": [
            {"dim": b * h, "depth": d, "layers": "vit", "let": {"num_heads": h}}
            for b, h, d in zip(base, heads, depth, strict=True)
        ],
    }


SPACES = {"autoformer_ti": autoformer, "pit": pit}
