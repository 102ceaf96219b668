"""The effective receptive field, where it is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.analyze import AnalysisError, effective_receptive_field
from blockforge.analyze.erf import SHARES, squares
from blockforge.compiler.lowering.backbone import Backbone

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]
PATCHES = {
    "blockforge": 1, "name": "patches", "input": {"size": [48, 64]}, "num_classes": 3, "drop_path": 0,
    "blocks": {"mlp": [{"op": "mlp"}], "near": [{"op": "dwconv", "kernel_size": 3}]},
    "stem": {"op": "patch_embed", "patch": 8},
    "stages": [{"dim": 8, "depth": 1, "layers": "mlp"}],
    "defaults": {"norm": "layer_norm"}, "head": {"op": "classifier"},
}  # fmt: skip


def test_a_network_without_mixing_sees_one_patch() -> None:
    model = bf.build(PATCHES, seed=0).eval()
    found = effective_receptive_field(model, [torch.randn(3, 3, 48, 64)])
    seen = torch.zeros(48, 64, dtype=torch.bool)
    seen[24:32, 32:40] = True  # the centre of the 6x8 map is position (3, 4)
    assert torch.equal(found.field > 0, seen)
    assert found.centre == (27.5, 35.5)
    assert float(found.field.max()) == 1.0
    assert found.sides[-1] == 8
    assert found.areas[-1] == 64 / (48 * 64)


def test_a_convolution_adds_the_neighbours() -> None:
    model = bf.build(PATCHES, {"stages.0.layers": "near"}, seed=0).eval()
    found = effective_receptive_field(model, [torch.randn(2, 3, 48, 64)])
    rows, columns = (torch.nonzero(found.field > 0)[:, i] for i in (0, 1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 39, 24, 47)


def test_it_is_the_mean_over_images_of_the_absolute_gradient(small: Small, noise: Noise) -> None:
    model = small("attention")
    x = noise(model, 3)
    found = effective_receptive_field(model, x.split(2))
    total = torch.zeros(x.shape[2:])
    for image in x:
        one = image[None].clone().requires_grad_()
        last = model.forward_features(one)
        last[0, :, last.shape[2] // 2, last.shape[3] // 2].relu().sum().backward()
        assert one.grad is not None
        total += one.grad[0].abs().sum(0)
    torch.testing.assert_close(found.field, total / total.max(), rtol=1e-4, atol=1e-5)


def test_another_stage(small: Small, noise: Noise) -> None:
    model = small("convnext")
    x = noise(model, 1)
    first, last = (effective_receptive_field(model, [x], stage=i) for i in (0, -1))
    assert first.areas[-1] < last.areas[-1]


def test_a_class_token_has_no_place() -> None:
    model = bf.build("deit_s", {"input.size": 64, "stages.0.dim": 24, "stages.0.depth": 1}, seed=0).eval()
    found = effective_receptive_field(model, [torch.randn(1, 3, 64, 64)])
    assert found.centre == (39.5, 39.5)  # position (2, 2) of 4 x 4 patches
    peak = divmod(int(found.field.argmax()), 64)
    assert all(32 <= p < 48 for p in peak)


def test_squares_of_an_even_field() -> None:
    sides, areas = squares(torch.ones(101, 101), (50.0, 50.0), SHARES)
    for share, side, area in zip(SHARES, sides, areas, strict=True):
        assert area == side**2 / 101**2
        assert (side - 2) ** 2 / 101**2 < share <= area


def test_squares_of_a_point() -> None:
    field = torch.zeros(20, 30)
    field[7, 9] = 5.0
    assert squares(field, (7.0, 9.0), (0.2, 0.99)) == ((1.0, 1.0), (1 / 600, 1 / 600))


def test_squares_are_cut_by_the_border() -> None:
    sides, areas = squares(torch.ones(10, 40), (4.5, 19.5), (0.99,))
    assert sides == (40.0,)
    assert areas == (1.0,)


def test_mistakes(small: Small, noise: Noise) -> None:
    model = small("attention")
    with pytest.raises(AnalysisError, match=r"no stage 5 in attention\n  hint: 0 to 1"):
        effective_receptive_field(model, [noise(model, 1)], stage=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(AnalysisError, match=r"gradient of the centre of stage 1 is zero"):
        effective_receptive_field(model, [noise(model, 1)])
