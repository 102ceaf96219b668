"""The narrow variants that the docs compare: of one size, and trainable."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

import blockforge as bf

FILES = {
    f.name[:-5]: Path(str(f)) for f in resources.files("blockforge.specs.narrow").iterdir() if f.name[-5:] == ".yaml"
}


def test_the_five_papers_and_a_resnet_are_there() -> None:
    assert {"sparx_mamba", "smt", "vssd", "mambavision", "strip_mlp", "resnet"} <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_each_is_of_the_size_and_takes_a_gradient(name: str) -> None:
    arch = bf.compile(FILES[name])
    assert arch.params == pytest.approx(525_000, rel=0.1)
    model = bf.build(arch, seed=0)
    logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
