"""A batch without an image is a batch: a sieve may leave one, and a loader's last shard may be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blockforge as bf
import blockforge.specs
from blockforge.kernels import backend

ZOO = Path(blockforge.specs.__file__).parent
SPECS = Path(__file__).parent / "specs"
FILES = [*sorted((ZOO / "narrow").glob("*.yaml")), *(SPECS / f"{n}.yaml" for n in ("vit_stem", "linear_attention"))]


@pytest.mark.parametrize("way", ["auto", "torch", "reference"])
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_no_image_gives_no_logits_and_maps_of_none(file: Path, way: str) -> None:
    model = bf.build(file).eval()
    plan = model.arch.plan
    x = torch.randn(0, plan.input.channels, *plan.input.size)
    with backend(way):
        with torch.no_grad():
            assert model(x).shape == (0, plan.num_classes)
            maps = model.forward_intermediates(x, intermediates_only=True)
            one = model.forward_intermediates(torch.randn(1, *x.shape[1:]), intermediates_only=True)
            assert [m.shape for m in maps] == [(0, *m.shape[1:]) for m in one]
        model(x).sum().backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
