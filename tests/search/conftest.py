"""A space of a few hundred tiny networks, and objectives that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.search import load_space
from blockforge.spec import Spec

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"
FEW = {"stages.0.dim": 8, "stages.0.depth": 1, "blocks.dw.0.kernel_size": 3, "blocks.dw.1.mlp_ratio": 1}
FEW |= {
    "let.heads": 1,
    "stages.1.layers": "dw",
    "stages.1.connect": "none",
    "stages.1.depth": {"$int": [1, 2]},
}
"""Leaves 6 networks: three widths and two depths of the last stage."""


@pytest.fixture
def tiny() -> Spec:
    return load_space(TINY)


@pytest.fixture
def few() -> Spec:
    return load_space(TINY, FEW)
