"""Each rule of the deployed form: what becomes of a block's parts, and that it gives the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.testing import randomise
from blockforge.testing.models import check_deployed

NORM = "batch_norm"


def spec(*layers: Any, dim: int = 6, size: int = 9, **more: Any) -> dict[str, Any]:
    """A network of these ops, each a layer."""
    stages = [{"dim": dim, "layers": [[*layers]]}]
    stem = {"op": "conv", "dim": dim, "kernel_size": 3, "bias": True}
    return {
        "blockforge": 1, "name": "net", "input": {"size": size}, "stem": [stem, "relu"], "stages": stages,
        "head": ["relu", "global_pool", "logits"], "num_classes": 3, **more,
    }  # fmt: skip


def parts(source: dict[str, Any], name: str = "stages.0.layers.0.chain") -> list[str]:
    """What runs in the layer's deployed form, which is found to give what the trained one gives."""
    model = bf.build(source, seed=0)
    generator = torch.Generator().manual_seed(1)
    for key, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5 * key.endswith("var"))
    deployed = check_deployed(randomise(model))
    program = deployed.arch.nodes[name].program
    assert program is not None
    return [step.op.op for step in program.steps]


def parallel(*members: Any, **more: Any) -> dict[str, Any]:
    return {"op": "parallel", "of": [*members], **more}


CONV3 = {"op": "conv", "kernel_size": 3}
CONV1 = {"op": "conv"}


@pytest.mark.parametrize(
    ("chain", "left"),
    [
        ([CONV3, NORM, "relu"], ["conv", "relu"]),
        ([{**CONV3, "bias": True}, NORM, "relu"], ["conv", "relu"]),
        ([{**CONV3, "padding": "tf"}, NORM], ["conv"]),
        (["linear", {"op": "scale", "init": 0.5}], ["linear"]),
        (["linear", {"op": "scale", "bias": True}, NORM], ["linear"]),
        (["dwconv", NORM, "gelu", "linear", NORM], ["dwconv", "gelu", "linear"]),
        ([{"op": "conv", "kernel_size": 3, "groups": 3}, NORM], ["conv"]),
        # before: a linear layer sees what a norm adds everywhere, a kernel with padding not at the edge
        ([NORM, "linear"], ["linear"]),
        ([NORM, {**CONV3, "padding": 0}, "relu"], ["conv", "relu"]),
        ([NORM, CONV3], ["batch_norm", "conv"]),
        ([{"op": "scale", "init": 2.0}, CONV3], ["conv"]),
        ([{"op": "scale", "init": 2.0}, {"op": "conv", "kernel_size": 3, "groups": 2}], ["conv"]),
        (["relu", NORM, {"op": "conv", "groups": 3}, "relu"], ["relu", "conv", "relu"]),
        # nothing between: what is between stays
        ([CONV3, "relu", NORM], ["conv", "relu", "batch_norm"]),
        ([CONV3, {"op": "group_norm", "num_groups": 2}], ["conv", "group_norm"]),
        (["linear", {"op": "drop_path", "rate": 0.5}, NORM], ["linear"]),
    ],
)  # fmt: skip
def test_norms_and_scales_become_a_part_of_the_convolution(chain: list[Any], left: list[str]) -> None:
    assert parts(spec(*chain)) == left


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (parallel([CONV3, NORM], [CONV1, NORM], NORM), ["conv"]),
        (parallel(CONV3, "identity"), ["conv"]),
        (parallel("identity", {**CONV1, "groups": 3}, CONV3, join={"op": "sum", "weights": [2, -1, 0.5]}), ["conv"]),
        (parallel("dwconv", {"op": "dwconv", "kernel_size": 5}, "identity"), ["dwconv"]),
        (parallel({"op": "dwconv", "kernel_size": [1, 7]}, {"op": "dwconv", "kernel_size": [3, 7]}), ["dwconv"]),
        (parallel({**CONV3, "dilation": 2}, CONV1), ["conv"]),
        (parallel([CONV3, NORM], [CONV1, NORM], join="mean"), ["conv"]),
        (parallel(parallel(CONV3, "identity"), CONV1, join={"op": "sum", "weights": [1, -2]}), ["conv"]),
        # not where it would cost more, nor where other positions are read
        (parallel({"op": "dwconv", "kernel_size": [1, 3]}, {"op": "dwconv", "kernel_size": [3, 1]}), None),
        (parallel({**CONV3, "dilation": 2}, CONV3), None),
        (parallel("linear", {"op": "dwconv", "kernel_size": 7}), None),
        (parallel(CONV3, ["relu", CONV1]), None),
        (parallel(CONV3, CONV1, join="max"), None),
        (parallel({**CONV3, "dim": 3}, {**CONV1, "dim": 3}, join="concat"), None),
        (parallel(CONV3, [CONV1, "sigmoid"], join="mul"), None),
        # what cannot be put together stays beside what can
        (parallel(CONV3, ["relu", CONV1], CONV1), ["conv", "relu", "conv", "add"]),
        (parallel(CONV3, "relu", CONV1, join={"op": "sum", "weights": [1, 3, 2]}), ["conv", "relu", "sum"]),
    ],
)  # fmt: skip
def test_convolutions_of_one_map_that_are_added_become_one(block: dict[str, Any], left: list[str] | None) -> None:
    source = spec(block, "relu")
    if left is None:
        arch = bf.compile(source)
        name = "stages.0.layers.0.chain"
        assert arch.deployed.nodes[name].program == arch.nodes[name].program
        return
    assert parts(source) == [*left, "relu"]
