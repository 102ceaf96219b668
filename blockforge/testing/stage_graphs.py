"""A Hypothesis strategy for specs whose stages form a graph: random stages behind those of a random chain."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from blockforge.testing.strategies import specs

_OPS: list[Any] = [
    {"op": "linear", "dim": "$out"},
    {"op": "conv", "dim": "$out", "kernel_size": 3, "stride": 2},
    [{"op": "linear", "dim": "$out"}, {"op": "resize", "scale": 2}],
    ["layer_norm", {"op": "conv", "dim": "$out", "kernel_size": 3}, "gelu"],
]
"""They give the width that they are asked for; the sizes meet in the join."""


@st.composite
def stage_graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec of `specs` with up to three further stages, each reads some before it, and one that reads the rest."""
    whole = draw(specs())
    stages: list[dict[str, Any]] = whole["stages"]
    dims = [stage["dim"] for stage in stages]
    unread = {len(stages) - 1}
    for _ in range(draw(st.integers(0, 3))):
        read = draw(st.lists(st.integers(0, len(stages) - 1), min_size=1, max_size=3))
        unread = (unread - set(read)) | {len(stages)}
        dims.append(draw(st.sampled_from(dims)))
        stages.append(draw(_reading(read, dims)))
    dims.append(dims[0])
    stages.append(draw(_reading(sorted(unread), dims)))
    whole.pop("heads", None)
    whole["head"] = {"op": "classifier"}
    return whole


@st.composite
def _reading(draw: st.DrawFn, read: list[int], dims: list[int]) -> dict[str, Any]:
    """A stage that reads those of these numbers; some by name, some through an op. `dims`: the last one is its own."""
    index, dim = len(dims) - 1, dims[-1]
    sources: list[Any] = []
    for stage in read:
        op = draw(st.sampled_from(_OPS if dims[stage] != dim else [None, None, *_OPS]))
        sources.append(stage if op is None else {"from": stage, "op": op})
    made: dict[str, Any] = {"name": f"s{index}", "dim": dim, "from": sources}
    if len(sources) == 1 and draw(st.booleans()):
        made["from"] = sources[0]
    resize = draw(st.sampled_from(["nearest", "bilinear"]))
    join = {"op": draw(st.sampled_from(["sum", "mul", "mean", "max", "concat"])), "resize": resize}
    asked = join["op"] == "concat" and len(sources) > 1  # a single map is joined to nothing, and gives its own width
    made["join"] = {**join, "dim": "$out"} if asked else join
    if len(sources) == 1 and sources[0] == read[0]:  # else it would be that stage again
        made["stage_norm"] = "layer_norm"
    if draw(st.booleans()):
        made |= {"depth": draw(st.integers(1, 2)), "layers": "one"}
    return made
