"""Layers that are ops, in whole networks."""

from __future__ import annotations

import io
from typing import Any

import pytest
from networks import dwconv, linear, network
from rich.console import Console

import blockforge as bf
from blockforge.search.space.locate import locate
from blockforge.search.space.size import count
from blockforge.testing import check_spec

MB = {
    "params": {"s": 1, "e": 2},
    "body": {
        "op": "residual",
        "skip": "$(in == out and s == 1)",
        "of": [linear("$(e * in)"), "batch_norm", "relu", dwconv(stride="$s"), "batch_norm", linear(), "batch_norm"],
    },
}


def mobile(**more: Any) -> dict[str, Any]:
    """Stages whose first layer has the stride, in place of a downsample."""
    stages = [{"dim": 16, "layers": [{"op": "mb", "e": 1}]}, {"dim": 24, "layers": [{"op": "mb", "s": 2}, "mb*2"]}]
    return network("mlp", define={"mb": MB}, downsample="none", stages=stages, drop_path=0.1, **more)


def test_a_network_of_ops_is_what_its_graph_says() -> None:
    arch = bf.compile(mobile())
    assert [tuple(shape) for shape in arch.stage_shapes()] == [(10, 14, 16), (5, 7, 24)]
    assert [layer.block for stage in arch.stages for layer in stage.layers] == ["mb"] * 4
    check_spec(arch)


def test_an_op_alone_is_a_branch_with_nothing_around_it() -> None:
    """The hash is that of the branch, since it computes the same."""
    block = {"op": "mlp", "norm": "none", "scale": "none", "skip": False}
    stages = [{"dim": 16, "depth": 2, "layers": "b"}]
    written = bf.compile(network(block, stages=stages))
    for layers in (["mlp", {"op": "mlp"}], ["mlp*2"], "mlp*2"):
        assert bf.compile(network("mlp", stages=[{"dim": 16, "layers": layers}])).hash == written.hash


def test_a_list_of_one_pattern_changes_nothing() -> None:
    ways = [{"depth": 3, "layers": "b"}, {"layers": "b*3"}, {"layers": ["b*3"]}, {"layers": ["b", "b*2"]}]
    assert len({bf.compile(network("mlp", stages=[{"dim": 16, **way}])).hash for way in ways}) == 1


def test_drop_path_inside_a_layer_rises_with_the_layers() -> None:
    arch = bf.compile(mobile())
    rates = [
        step.op.rate
        for node in arch.nodes.values()
        if node.layer is not None
        for step in node.program.steps
        if step.op.op == "drop_path"
    ]
    assert rates == pytest.approx([0.1 * 2 / 3, 0.1])  # the first rate is 0, the strided layer has no identity path


def test_tables_name_such_layers() -> None:
    listed = [["layer_norm", {"op": "mlp"}], "mb"]
    arch = bf.compile(network("mlp", define={"mb": MB}, stages=[{"dim": 16, "layers": listed}]))
    console = Console(file=io.StringIO(), width=120)
    console.print(arch.summary())
    assert "chain + mb" in console.file.getvalue()


def test_a_stage_of_a_downsample_alone() -> None:
    stages = [{"dim": 16, "depth": 1, "layers": "b"}, {"dim": 32}]
    arch = bf.compile(network("mlp", stages=stages))
    assert [tuple(shape) for shape in arch.stage_shapes()] == [(10, 14, 16), (5, 7, 32)]
    check_spec(arch)


def test_a_stage_of_nothing_is_refused() -> None:
    stages = [{"dim": 16, "depth": 1, "layers": "b"}, {"dim": 16, "downsample": "none"}]
    with pytest.raises(bf.SpecError, match="stage 1 has neither layers nor a downsample"):
        bf.compile(network("mlp", stages=stages))
    stages[1]["layers"] = ["identity"]  # as the hint says
    assert len(bf.compile(network("mlp", stages=stages)).stages) == 2


def test_spaces_know_lists() -> None:
    around = {"stem": "conv_stem", "head": "classifier"}

    def stages(kernel_size: Any, rest: Any) -> list[dict[str, Any]]:
        return [{"dim": 16, "layers": [dwconv(kernel_size), rest]}]

    open_stages = stages({"$choice": [3, 5, 7]}, {"$choice": ["b", "b*2", "dwconv"]})
    space = bf.load(network("mlp", stages=open_stages, **around))
    assert count(space).combinations == 9
    for rest in ("b*2", "dwconv"):
        answers = {"stages.0.layers.0.kernel_size": 7, "stages.0.layers.1": rest}
        assert locate(space, network("mlp", stages=stages(7, rest), **around)) == answers
