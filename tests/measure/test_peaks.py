"""The predicted peak of inference is what torch allocates, for one image and several, copies of weights included."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge import specs
from blockforge.blocks import primitives, registry
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import Conv2d, Linear
from blockforge.cli import main
from blockforge.compiler.costs.cost import BYTES
from blockforge.kernels import backend
from blockforge.kernels.costs import costs_of
from blockforge.kernels.cpu import channel_blocks
from blockforge.measure import peaks
from blockforge.measure.memory import allocated_peak
from blockforge.testing import build_on_maps, example_inputs

TOLERANCE = 0.05
NOISE = 40_000
"""Bytes that a library rounds up or takes for a bias, which no cost counts: nothing beside a whole network's."""
ZOO = sorted(file.stem for file in Path(specs.__file__).parent.glob("*.yaml"))
SMALL = {
    "deit_s": 224,  # a stem whose weights, copied twice, outweigh the maps
    "mambavision_t": 224,  # a downsample by blocks of channels
    "mlp_mixer_b16": 224,  # rows of a product, copied
    "convnext_t": 224,  # a linear layer that becomes a convolution at batch 4
    "vssd_micro": 224,  # convolutions of a stem, where less is alive than at its peak
    "resnet50": 64,  # weights outweigh maps in every stage
    "swin_tiny": 64,
}


def check(name: str, size: int) -> None:
    for peak in peaks.measure(name, [size], [1, 4]):
        assert peak.ratio == pytest.approx(1, rel=TOLERANCE), peak


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str) -> None:
    check(name, SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize("name", ZOO)
def test_the_whole_zoo(name: str, size: int) -> None:
    check(name, size)


def allocated(run: Any) -> int:
    with torch.inference_mode():
        run()
        return allocated_peak(run)


def held(cost: Cost, images: int) -> int:
    return max((s.held(images) for s in cost.scratch), default=0)


CONVS = {  # in, out, kernel, stride, side
    "a patch embedding": (3, 384, 16, 16, 224),
    "columns": (64, 64, 3, 1, 17),
    "at the edge of columns": (64, 64, 3, 1, 18),
    "columns of a smaller map": (64, 128, 3, 2, 16),
    "two taps": (96, 192, 2, 2, 14),
    "a wide map": (64, 64, 3, 1, 56),
    "blocks of channels, the last one smaller": (320, 640, 3, 2, 14),
    "blocks of channels, one after the other": (512, 1024, 3, 1, 4),
    "a block of few channels": (4, 384, 8, 8, 96),
    "a strided pointwise one": (256, 1024, 1, 2, 28),
    "a strided pointwise one of few positions": (1024, 2048, 1, 2, 4),
    "one piece": (256, 256, 3, 1, 6),
}


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("case", CONVS)
def test_convolutions(case: str, images: int) -> None:
    in_chs, out_chs, kernel, stride, side = CONVS[case]
    conv = Conv2d(in_chs, out_chs, kernel, stride=stride, padding=0 if stride == kernel else None)
    x = torch.randn(images, side, side, in_chs).permute(0, 3, 1, 2)
    with torch.inference_mode():
        y = conv(x)
    taps, given = (kernel, kernel), y[0, 0].numel()
    predicted = y.nbytes + held(primitives.conv(in_chs, out_chs, taps, given, read=side * side), images)
    assert predicted == pytest.approx(allocated(lambda: conv(x)), rel=TOLERANCE, abs=NOISE)


SLIDING: list[tuple[tuple[int, int, int], int, dict[str, Any]]] = [
    ((56, 56, 64), 64, {"kernel_size": [1, 7]}),
    ((28, 28, 64), 64, {"kernel_size": 3, "stride": [2, 1]}),
    ((28, 28, 128), 128, {"kernel_size": 3, "dilation": 2}),
    ((14, 14, 64), 64, {"kernel_size": 3, "dilation": 2}),
    ((7, 7, 512), 512, {"kernel_size": 3, "dilation": 2}),  # not by blocks of channels
    ((112, 112, 32), 32, {"kernel_size": 3, "stride": 2, "padding": "tf"}),
    ((28, 28, 64), 64, {"kernel_size": 1, "padding": 1}),
    ((14, 14, 512), 512, {"kernel_size": 3, "groups": 2}),
    ((14, 14, 512), 512, {"kernel_size": 3, "group_width": 8}),
    ((14, 14, 384), 384, {"kernel_size": 3, "group_width": 24}),
    ((9, 9, 96), 480, {"kernel_size": 5, "groups": 8}),
    ((14, 14, 512), 1024, {"kernel_size": 3, "groups": 512}),
    ((14, 14, 512), 512, {"kernel_size": 1, "groups": 4, "stride": 2}),
]


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(("sides", "dim", "parameters"), SLIDING, ids=str)
def test_the_part_conv(sides: tuple[int, int, int], dim: int, parameters: dict[str, Any], images: int) -> None:
    op = registry.make("conv", parameters, "part")
    module, x = build_on_maps(op, Shape(*sides), dim).eval(), torch.randn(images, *sides)
    predicted = images * op.workspace(Shape(*sides), dim) * BYTES + held(op.cost(Shape(*sides), dim), images)
    assert predicted == pytest.approx(allocated(lambda: module(x)), rel=TOLERANCE, abs=NOISE)


@pytest.mark.parametrize(
    "shape", [(4, 56, 56, 96), (1, 56, 56, 96), (1, 14, 14, 768), (1, 1, 197, 1536), (9, 1000, 64)]
)
def test_linear_layers(shape: tuple[int, ...]) -> None:
    layer, x = Linear(shape[-1], 384), torch.randn(shape)
    positions = x[0, ..., 0].numel()
    for name in ("numba", "torch"):
        with costs_of(name), backend(name):
            cost = primitives.linear(shape[-1], 384, positions, on_map=len(shape) == 4)
            found = allocated(lambda: layer(x))
        assert 4 * x[..., 0].numel() * 384 + held(cost, len(x)) == pytest.approx(found, abs=2 * 4096 + 1024), name


def test_the_blas_holds_nothing() -> None:
    assert held(primitives.linear(64, 64, 16), 1) == 0
    assert held(primitives.linear(64, 64, 16), 1000) > 0
    with costs_of("torch"):
        assert held(primitives.linear(1024, 1024, 4096), 1) == 0


def test_operations_share_what_they_hold() -> None:
    """One after the other they run: of two, the larger."""
    small, large = primitives.conv(64, 64, (3, 3), 3136), primitives.conv(128, 128, (3, 3), 3136)
    assert held(small + large, 1) == held(large + small, 1) == held(large, 1)
    assert held(Cost(params=1) + small + small, 1) == held(small, 1)


def test_the_path_of_a_convolution_is_that_of_its_costs() -> None:
    """By blocks of channels exactly where costs say so, at the edge of the sizes too."""
    weight = torch.zeros(64, 64, 6, 6)
    for side in (33, 34):
        assert channel_blocks.outweighs(weight, torch.zeros(1, 64, side, side)) == channel_blocks.is_outweighed(
            64 * side * side, weight.numel()
        )
    assert channel_blocks.is_outweighed(64 * 33 * 33, weight.numel())
    assert not channel_blocks.is_outweighed(64 * 34 * 34, weight.numel())


PLACES = {
    "vit_stem": ({}, (Shape(96, 96, 3), 384)),
    "patch_embed": ({"patch": 8}, (Shape(96, 96, 3), 384)),
    "patch_stem": ({"patch": 8}, (Shape(96, 96, 3), 384)),
    "overlap_embed": ({}, (Shape(96, 96, 3), 384)),
    "conv_stem": ({}, (Shape(96, 96, 3), 256)),
    "conv_stem2": ({}, (Shape(96, 96, 3), 256)),
    "conv_pool_stem": ({}, (Shape(96, 96, 3), 256)),
    "residual_stem": ({}, (Shape(96, 96, 3), 256)),
    "conv_downsample": ({}, (Shape(14, 14, 192), 384)),
    "patch_downsample": ({}, (Shape(14, 14, 192), 384)),
    "bottleneck_downsample": ({}, (Shape(14, 14, 256), 512)),
    "bottleneck": ({}, (Shape(14, 14, 512),)),
    "conv_block": ({}, (Shape(14, 14, 192),)),
    "mlp": ({}, (Shape(14, 14, 384),)),
    "token_mlp": ({}, (Shape(14, 14, 384),)),
}


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("name", PLACES)
def test_blocks_whose_weights_outweigh_their_maps(name: str, images: int) -> None:
    parameters, place = PLACES[name]
    kind = "stem" if place[0].dim == 3 else "downsample" if len(place) == 2 else "mixer"
    op = registry.make(name, parameters, "ffn" if name == "mlp" else kind)
    module: nn.Module = build_on_maps(op, *place).eval()
    x: Tensor = example_inputs(op.kind, *place, batch=images)[0].contiguous()
    most = images * op.workspace(*place) * BYTES
    for scratch in op.cost(*place).scratch:
        alive = op.workspace(*place) if scratch.alive is None else scratch.alive
        most = max(most, images * alive * BYTES + scratch.held(images))
    assert most == pytest.approx(allocated(partial(module, x)), rel=TOLERANCE, abs=NOISE)


def test_windows_are_a_batch() -> None:
    """What a block of windows holds is for all of them at once."""
    stage = {"dim": 96, "depth": 1, "layers": "branch", "window": 7}
    tree = {"blockforge": 1, "name": "tiles", "num_classes": 4, "blocks": {"branch": [{"op": "mlp"}]}}
    tree |= {"stem": {"op": "patch_embed", "patch": 2}, "head": {"op": "classifier"}}
    found = list(peaks.measure({**tree, "stages": [stage]}, [112], [1, 4]))
    assert [p.ratio for p in found] == [pytest.approx(1, rel=TOLERANCE)] * 2


def test_other_types_are_live_activations_alone() -> None:
    arch = bf.compile("deit_s")
    assert arch.peak_activation_bytes(2, "bfloat16") == arch.activation_bytes
    assert arch.peak_activation_bytes() > 1.3 * arch.activation_bytes


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "memory", "deit_s", "--size", "64,96", "--batch", "1,2", "--threads", "1", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [(p["size"], p["batch"]) for p in found] == [(64, 1), (64, 2), (96, 1), (96, 2)]
    assert all(p["ratio"] == p["predicted"] / p["allocated"] for p in found)
    assert "deit_s, 96 px, batch 2: " in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--batch", "0"], "'0' is not a list of batch sizes"), (["--size", "a"], "'a' is not a list of sizes")],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "memory", "deit_s", *arguments]) == 1
    assert message in capsys.readouterr().err
