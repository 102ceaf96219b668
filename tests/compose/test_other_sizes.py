"""Composed networks at another size of the image than their spec's: sizes that were computed for that one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import network

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.sliding import Window
from blockforge.eject import eject
from blockforge.eject.network import CLASS
from blockforge.errors import OpError
from blockforge.testing.models import check_sizes

GRID = {"op": "adaptive_pool", "size": ["$height", "$width"]}
KEPT = {"op": "dwconv", "kernel_size": 3}


def at(spec: dict[str, Any], *size: int) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = bf.build(spec, seed=0).eval()(torch.zeros(1, 3, *size))
    return y


@pytest.mark.parametrize(
    "spec",
    [
        network({"op": KEPT, "skip": GRID}),
        network({"op": [GRID, KEPT]}),
        network({"op": {"op": "residual", "of": KEPT, "skip": GRID}, "skip": False}),
        network(
            "mlp", skips=[{"from": 0, "to": [1], "op": [{**GRID, "size": [5, 7]}, {"op": "linear", "dim": "$out"}]}]
        ),
    ],
)
def test_sums_of_maps_that_no_longer_meet_are_refused_in_words(spec: dict[str, Any]) -> None:
    assert at(spec, 40, 56).shape == (1, 10)
    for size in ((48, 48), (8, 8)):  # a single position is not broadcast: no network of that size would
        with pytest.raises(OpError, match=r"maps of \d+x\d+ and \d+x\d+ do not meet at this size of the image") as e:
            at(spec, *size)
        assert "input.size" in str(e.value.hint)
    check_sizes(bf.build(spec))


def test_an_ejected_file_just_adds() -> None:
    assert "added(" not in eject(bf.build(network({"op": {"op": "residual", "of": KEPT}, "skip": "identity"})))


@pytest.mark.parametrize(
    ("spec", "least"),
    [
        (network({"op": {"op": "avg_pool", "kernel_size": 4, "stride": 1}, "skip": False}), (28, 28)),
        (network("mlp", head=[{"op": "max_pool", "kernel_size": [5, 2]}, "logits"]), (40, 16)),
        (network({"op": {"op": "max_pool", "kernel_size": ["$height", 1]}, "skip": False}, downsample="none",
                 stages=[{"dim": 16, "depth": 1, "layers": "b"}]), (40, 4)),
    ],
)  # fmt: skip
def test_images_that_a_layer_or_a_head_leaves_nothing_of_are_refused(
    spec: dict[str, Any], least: tuple[int, int]
) -> None:
    spec["input"] = {"size": [max(40, least[0]), max(56, least[1])]}
    assert bf.compile(spec).least_image == least
    at(spec, *least)
    for small in ((least[0] - 1, 64), (64, least[1] - 1)):
        with pytest.raises(OpError, match="leaves nothing of images of") as e:
            at(spec, *small)
        assert e.value.hint == f"{least[0]}x{least[1]} or larger"


def test_an_ejected_file_knows_the_least_image() -> None:
    spec = network("mlp", head=[{"op": "max_pool", "kernel_size": 5}, "global_pool", "logits"])
    scope: dict[str, Any] = {}
    exec(eject(bf.build(spec)), scope)
    with pytest.raises(ValueError, match="of 40x40 or larger"):
        scope[CLASS]()(torch.zeros(1, 3, 64, 32))


def test_pools_that_reach_beyond_the_map_are_as_large_as_torch_makes_them() -> None:
    """A map smaller than the kernel has a window, too, that begins in it."""
    for kernel, stride, ceil, side in itertools.product(range(1, 5), range(1, 5), (False, True), range(1, 7)):
        for padding in range(kernel // 2 + 1):
            over = Window((kernel, kernel), (stride, stride), (1, 1), (padding, padding), ceil)
            try:
                given = F.max_pool2d(torch.zeros(1, 1, side, side), kernel, stride, padding, ceil_mode=ceil).shape[2]
            except RuntimeError:
                given = 0
            assert over.out_shape(Shape(side, side, 1), 1).height == given
