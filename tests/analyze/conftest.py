"""Small networks and images that the tests of the analysis share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.testing import randomise

SPECS = Path(__file__).parents[1] / "specs"


@pytest.fixture
def small() -> Callable[..., Backbone]:
    """`small("attention", {...})`: the network of a test spec with random weights, in evaluation mode."""

    def make(name: str, overrides: dict[str, object] | None = None) -> Backbone:
        return randomise(bf.build(SPECS / f"{name}.yaml", overrides, seed=0)).eval()  # type: ignore[return-value]

    return make


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """`noise(model, 6)`: images for a network."""

    def make(model: Backbone, count: int = 6, seed: int = 0) -> Tensor:
        plan = model.arch.plan.input
        return torch.randn(count, plan.channels, *plan.size, generator=torch.Generator().manual_seed(seed))

    return make
