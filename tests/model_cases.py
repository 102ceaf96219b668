"""Small models that tests of the built module share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.testing import randomise

SPECS = Path(__file__).parent / "specs"
SMT: dict[str, Any] = {
    "input.size": 64,
    "num_classes": 10,
    **{f"stages.{i}.dim": 16 * 2**i for i in range(4)},
    **{f"stages.{i}.depth": (1, 1, 2, 1)[i] for i in range(4)},
}
CONNECTED = {
    "stages.0.window": 4,
    "stages.0.depth": 2,
    "stages.1.depth": 4,
    "stages.1.connect": {"rule": "sparx", "stride": 2, "window": 1, "aggregate": "concat"},
}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "smt": ("smt_b", SMT),
    "connected": (SPECS / "sam.yaml", CONNECTED),
    "skips": (SPECS / "dwconv_downsample.yaml", {"stages.2.window": 2}),
}
"""Three small models that between them have everything a graph may have."""


def build(which: str, **given: Any) -> Backbone:
    source, overrides = MODELS[which]
    model = bf.build(source, overrides, seed=0, **given)
    return randomise(model).eval()  # type: ignore[return-value]


def image(model: Backbone, batch: int = 2, seed: int = 0) -> Tensor:
    size = model.arch.plan.input.size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
