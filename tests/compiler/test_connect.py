"""Edges between layers, stages and windows, as nodes and edges of the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockforge.compiler import compile_spec
from blockforge.compiler.graph.connect import STAGE_INPUT, Dense, Edges, SparX
from blockforge.errors import OpError
from blockforge.spec import from_text, load, resolve

Tiny = Callable[..., str]
DESIGN = Path(__file__).parents[1] / "data" / "design"


# --- rules alone


def test_the_paper_s_example() -> None:
    """Eight layers, S = 2: normal and ganglion layers in turn; M = 2 keeps two earlier ganglion layers."""
    all_of_them = SparX(stride=2).sources(8, first_stage=True)
    assert all_of_them == {1: (0,), 3: (2, 1), 5: (4, 1, 3), 7: (6, 1, 3, 5)}
    assert SparX(stride=2, window=2).sources(8, first_stage=True) == {
        1: (0,),
        3: (2, 1),
        5: (4, 1, 3),
        7: (6, 3, 5),
    }


def test_the_stage_s_input_feeds_the_first_ganglion_layer() -> None:
    """In every stage but the first, before the normal layers' outputs."""
    later = SparX(stride=3, window=1).sources(8, first_stage=False)
    assert later == {1: (STAGE_INPUT, 0), 4: (2, 3, 1), 7: (5, 6, 4)}
    assert SparX(stride=1).sources(2, first_stage=False) == {0: (STAGE_INPUT,), 1: (0,)}
    assert SparX(stride=1).sources(2, first_stage=True) == {1: (0,)}


def test_no_ganglion_layer_before_start() -> None:
    assert SparX(stride=1, start=1).sources(2, first_stage=False) == {1: (STAGE_INPUT, 0)}
    assert SparX(stride=2, start=2).sources(6, first_stage=True) == {3: (0, 1, 2), 5: (4, 3)}
    assert SparX(stride=2, start=100).sources(6, first_stage=False) == {}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (1, {1: (STAGE_INPUT, 0)}),
        (2, {0: (STAGE_INPUT,), 2: (1, 0), 4: (3, 0, 2), 6: (5, 0, 2, 4)}),
        (3, {0: (STAGE_INPUT,), 1: (0,)}),
    ],
)
def test_sparx_mamba_t(stage: int, expected: dict[int, tuple[int, ...]]) -> None:
    planned = resolve(load(DESIGN / "sparx_mamba_t.yaml")).stages[stage]
    assert planned.connect is not None
    rule = SparX(**planned.connect.model_extra)
    assert rule.sources(len(planned.layers), first_stage=False) == expected


@given(
    st.integers(1, 40),
    st.integers(1, 10),
    st.integers(1, 6) | st.just("all"),
    st.integers(0, 8),
    st.booleans(),
)
def test_sparx_laws(depth: int, stride: int, window: Any, start: int, first: bool) -> None:
    """What the paper says of every layer, for any S and M."""
    found = SparX(stride=stride, window=window, start=start).sources(depth, first)
    ganglion = [i for i in range(depth) if (depth - 1 - i) % stride == 0 and i >= start]
    assert set(found) <= set(ganglion)
    for order, layer in enumerate(ganglion):
        sources = found.get(layer, ())
        earlier = [s for s in sources if s in ganglion]
        normal = [s for s in sources if s not in ganglion and s != STAGE_INPUT]
        before = ganglion[order - 1] if order else -1
        assert normal == list(range(before + 1, layer))
        assert earlier == (ganglion[:order] if window == "all" else ganglion[:order][-window:])
        assert (STAGE_INPUT in sources) == (order == 0 and not first)


def test_dense() -> None:
    assert Dense().sources(4, first_stage=False) == {1: (0,), 2: (0, 1), 3: (0, 1, 2)}
    assert Dense(start=3).sources(4, first_stage=True) == {3: (0, 1, 2)}
    assert Dense().sources(1, first_stage=True) == {}


def test_edges_keep_the_order_they_are_listed_in() -> None:
    rule = Edges(edges=[[2, 3], [-1, 1], [0, 3]])
    assert rule.sources(4, first_stage=True) == {1: (STAGE_INPUT,), 3: (2, 0)}
    with pytest.raises(OpError, match=r"the edge \[1, 1\] does not lead forward"):
        Edges(edges=[[1, 1]]).sources(4, first_stage=True)


def test_a_stage_of_very_many_edges_is_refused() -> None:
    for rule in (Dense(), SparX(stride=1)):
        with pytest.raises(OpError, match="10000 are allowed in a stage"):
            rule.sources(1000, first_stage=True)
    assert len(SparX(stride=1, window=9).sources(1000, first_stage=True)) == 999


# --- in the graph


def compiled(text: str) -> nx.DiGraph:
    return compile_spec(from_text(text)).graph


def connected(tiny: Tiny, rule: str, layers: str = "(sam msa)*") -> nx.DiGraph:
    return compiled(tiny(("layers: (sam msa)*}", f"layers: {layers},\n    connect: {{{rule}, aggregate: concat}}}}")))


def test_nodes_and_edges_of_a_plain_network(tiny: Tiny) -> None:
    graph = compiled(tiny())
    assert list(graph)[:5] == [
        "input",
        "stem",
        "stages.0.layers.0.sam",
        "stages.0.layers.0.conv_mlp",
        "stages.0.layers.1.sam",
    ]
    assert list(graph)[-1] == "head"
    assert list(graph) == list(nx.lexicographical_topological_sort(graph, key=list(graph).index))
    assert {role for _, _, role in graph.edges(data="role")} == {"main"}
    assert all(len(node["inputs"]) == 1 for name, node in graph.nodes.items() if name != "input")


def test_aggregators_stand_before_the_mixer_they_feed(tiny: Tiny) -> None:
    graph = connected(tiny, "rule: sparx, stride: 2, window: all")
    assert [n for n in graph if n.endswith("aggregate")] == [
        "stages.1.layers.1.aggregate",
        "stages.1.layers.3.aggregate",
    ]
    node = graph.nodes["stages.1.layers.3.aggregate"]
    assert node["inputs"] == (
        "stages.1.layers.2.conv_mlp",  # x
        "stages.1.layers.2.conv_mlp",  # the normal layer before it
        "stages.1.layers.1.mlp",  # the ganglion layer before that
    )
    assert graph.nodes["stages.1.layers.3.attention"]["inputs"] == (
        "stages.1.layers.2.conv_mlp",
        "stages.1.layers.3.aggregate",
    )
    assert node["norm"] is not None  # the branch's norm, in front of the aggregator
    assert graph.nodes["stages.1.layers.3.attention"]["norm"] is None
    assert node["out_shape"] == (8, 8, 64)


def test_roles_of_edges(tiny: Tiny) -> None:
    graph = connected(tiny, "rule: sparx, stride: 2, window: all")
    roles = {(u, v): role for u, v, role in graph.edges(data="role") if role != "main"}
    assert roles == {
        ("stages.1.downsample", "stages.1.layers.1.aggregate"): "inter",
        ("stages.1.layers.1.mlp", "stages.1.layers.3.aggregate"): "intra",
    }


def test_dense_edges_in_the_graph(tiny: Tiny) -> None:
    graph = connected(tiny, "rule: dense", "sam")
    counts = [len(node["inputs"]) - 1 for name, node in graph.nodes.items() if node["kind"] == "aggregator"]
    assert counts == [1, 2, 3]


def test_a_positional_convolution_is_not_what_is_fed(tiny: Tiny) -> None:
    """The aggregator feeds the first mixer behind a norm; without any, the first mixer."""
    position = "- {op: dwconv, norm: none, drop_path: false}\n    "
    spec = tiny(
        ("- {op: sam,", f"{position}- {{op: sam,"),
        ("layers: (sam msa)*}", "layers: sam, connect: {rule: dense, aggregate: concat}}"),
    )
    graph = compiled(spec)
    assert graph.nodes["stages.1.layers.1.sam"]["inputs"][1] == "stages.1.layers.1.aggregate"
    graph = compiled(spec.replace("defaults: {norm: layer_norm}", "defaults: {norm: none}"))
    assert graph.nodes["stages.1.layers.1.dwconv"]["inputs"][1] == "stages.1.layers.1.aggregate"


def test_equal_ops_of_a_layer_have_different_names(tiny: Tiny) -> None:
    graph = compiled(tiny(("    - {op: attention, num_heads: 4}", "    - dwconv\n    - dwconv")))
    names = [n.rsplit(".", 1)[1] for n in graph if n.startswith("stages.1.layers.1.")]
    assert names == ["dwconv", "dwconv_2", "mlp"]


# --- long skips

THREE = (
    "  - {dim: 64, depth: 4, layers: (sam msa)*}",
    "  - {dim: 64, depth: 1, layers: sam}\n  - {dim: 128, depth: 1, layers: sam}",
)


def with_skips(tiny: Tiny, *skips: str) -> nx.DiGraph:
    return compiled(tiny(THREE, ("head:", "skips:\n" + "".join(f"  - {s}\n" for s in skips) + "head:")))


def test_a_skip_passes_through_its_op_once_a_stage(tiny: Tiny) -> None:
    graph = with_skips(tiny, "{from: 0, to: [1, 2], op: dwconv_downsample}")
    assert [n for n in graph if n.startswith("skips")] == ["skips.0.1", "skips.0.2"]
    assert graph.nodes["skips.0.1"]["inputs"] == ("stem",)
    assert graph.nodes["skips.0.2"]["inputs"] == ("skips.0.1",)
    assert graph.nodes["stages.1.add.0"]["inputs"] == ("stages.1.downsample", "skips.0.1")
    assert graph.nodes["stages.2.add.0"]["inputs"] == ("stages.2.downsample", "skips.0.2")
    assert graph.edges["skips.0.1", "stages.1.add.0"]["role"] == "skip"
    assert graph.nodes["skips.0.2"]["out_shape"] == (4, 4, 128)


def test_a_skip_that_only_passes_by_is_not_added(tiny: Tiny) -> None:
    graph = with_skips(tiny, "{from: 0, to: [2], op: dwconv_downsample}")
    assert "skips.0.1" in graph
    assert [n for n in graph if ".add." in n] == ["stages.2.add.0"]


def test_a_skip_leaves_before_anything_is_added(tiny: Tiny) -> None:
    """Strip-MLP: the input of stage 1 as its downsample gives it, not with stage 0's skip in it."""
    graph = with_skips(
        tiny, "{from: 0, to: [1, 2], op: dwconv_downsample}", "{from: 1, to: [2], op: dwconv_downsample}"
    )
    assert graph.nodes["skips.1.2"]["inputs"] == ("stages.1.downsample",)
    assert graph.nodes["stages.2.add.1"]["inputs"] == ("stages.2.add.0", "skips.1.2")
    assert graph.nodes["stages.2.layers.0.sam"]["inputs"] == ("stages.2.add.1",)


# --- windows


def windowed(tiny: Tiny, size: str, window: int) -> Any:
    return compile_spec(
        from_text(tiny(("{size: 64}", f"{{size: {size}}}"), ("(sam msa)*}", f"(sam msa)*, window: {window}}}")))
    )


def test_windows_cut_the_map_into_tiles(tiny: Tiny) -> None:
    """A map of 9 x 13 in windows of 4 is padded to 12 x 16: 3 x 4 tiles."""
    arch = windowed(tiny, "[72, 104]", 4)
    entry, exit_ = arch.graph.nodes["stages.1.window_in"], arch.graph.nodes["stages.1.window_out"]
    assert entry["in_shape"] == (9, 13, 64)
    assert (entry["out_shape"], entry["windows"]) == ((4, 4, 64), 12)
    assert (exit_["out_shape"], exit_["windows"]) == ((9, 13, 64), 1)
    layer = arch.graph.nodes["stages.1.layers.1.attention"]
    assert (layer["in_shape"], layer["windows"]) == ((4, 4, 64), 12)
    assert not arch.warnings


def test_attention_in_windows_costs_less(tiny: Tiny) -> None:
    whole = compile_spec(from_text(tiny()))
    tiles = windowed(tiny, "64", 4)  # 8 x 8 in 2 x 2 tiles, nothing is padded
    name = "stages.1.layers.1.attention"
    saved = whole.graph.nodes[name]["macs"] - tiles.graph.nodes[name]["macs"]
    assert saved == 2 * 64 * (64**2 - 4 * 16**2)
    assert whole.params == tiles.params


def test_a_window_larger_than_the_map_is_a_warning(tiny: Tiny) -> None:
    (warning,) = windowed(tiny, "64", 14).warnings
    assert warning.render() == (
        "<text>:17:53: warning[window]: window 14 is larger than the map of stage 1, 8x8 (stages[1].window)\n"
        "   17 |   - {dim: 64, depth: 4, layers: (sam msa)*, window: 14}\n"
        "      |                                                     ^^\n"
        "  hint: zeros fill the rest; a window of 8 covers the whole map"
    )


def test_the_stage_s_input_that_is_a_source_is_in_windows_too(tiny: Tiny) -> None:
    graph = connected(tiny, "rule: sparx, stride: 4", "sam, window: 4")
    assert graph.nodes["stages.1.layers.3.aggregate"]["inputs"][1] == "stages.1.window_in"
