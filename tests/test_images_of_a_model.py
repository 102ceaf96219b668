"""What is no batch of images of a network is refused in words, whatever its first layer is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blockforge as bf
from blockforge.errors import InputError

STEMS = ["conv_stem", "conv_stem2", "overlap_embed", "patch_embed", "patch_stem", "residual_stem", "conv_pool_stem"]
SPECS = Path(__file__).parent / "specs"


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 1, 64, 64), r"wants images \(B, 3, H, W\), got \(1, 1, 64, 64\)\n  hint: in_chans=N"),
        ((1, 64, 64, 3), r"got \(1, 64, 64, 3\)\n  hint: x.permute\(0, 3, 1, 2\)"),
        ((3, 64, 64), r"got \(3, 64, 64\)\n  hint: x\[None\]"),
        ((64,), r"got \(64,\)"),
        ((1, 1, 3, 64, 64), r"got \(1, 1, 3, 64, 64\)"),
    ],
)
def test_shapes(stem: str, shape: tuple[int, ...], said: str) -> None:
    model = bf.build(SPECS / f"{stem}.yaml")
    with pytest.raises(InputError, match=said):
        model(torch.zeros(shape))
    with pytest.raises(InputError, match=said):
        model.features()(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_types(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=rf"of floats, got {dtype}\n  hint: x.float\(\) / 255"):
        bf.build(SPECS / "conv_stem.yaml")(torch.zeros(1, 3, 64, 64, dtype=dtype))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tracers_still_pass() -> None:
    model = bf.build(SPECS / "conv_stem.yaml").eval()
    x = torch.randn(1, 3, *model.arch.plan.input.size)
    traced = torch.jit.trace(model, x, check_trace=False)
    assert torch.equal(traced(x), model(x))
    exported = torch.export.export(model, (x,)).module()
    assert torch.equal(exported(x), model(x))
