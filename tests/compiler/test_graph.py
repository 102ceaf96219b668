"""The graph as objects, and as networkx knows it."""

from __future__ import annotations

import dataclasses

import networkx as nx
import pytest

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.sites import AggregateSite, BranchSite
from blockforge.compiler.graph.units import Layer

OVERRIDES = [
    "stages.2.connect={rule: sparx, stride: 2, window: 1, aggregate: concat}",
    "stages.1.window=7",
    "skips=[{from: 1, to: [2, 3], op: dwconv_downsample}]",
]


@pytest.fixture(scope="module")
def arch() -> Architecture:
    return compile_spec("smt_t", OVERRIDES)


def test_a_network_is_shown_in_a_line(arch: Architecture) -> None:
    assert repr(arch) == f"<Architecture smt_t: {arch.totals}>"


def test_networkx_has_the_nodes_and_edges(arch: Architecture) -> None:
    graph = arch.graph
    assert isinstance(graph, nx.DiGraph)
    assert list(graph) == list(arch.nodes)
    assert all(graph.nodes[name]["node"] is node for name, node in arch.nodes.items())
    for name, node in arch.nodes.items():
        assert set(graph.predecessors(name)) == set(node.inputs)
        known = graph.nodes[name]
        assert (known["params"], known["macs"]) == (node.params, node.macs)
        assert known["out_shape"] == node.shapes.out_shape
    assert graph.nodes["stages.1.window_in"]["loc"].source.name == "--set stages.1.window"
    for source, target, edge in graph.edges(data="edge"):
        assert (edge.source, edge.target) == (source, target)
        assert edge.shape == arch.nodes[source].out_shape
    assert {edge.role for edge in arch.edges} == {"main", "intra", "inter", "skip"}


def test_nodes_stand_in_topological_order(arch: Architecture) -> None:
    order = {name: i for i, name in enumerate(arch.nodes)}
    assert nx.is_directed_acyclic_graph(arch.graph)
    assert all(order[source] < order[target] for source, target in arch.graph.edges)
    assert nx.ancestors(arch.graph, "head") == set(arch.nodes) - {"head"}


def test_units_and_stages_hold_every_node_once(arch: Architecture) -> None:
    assert [n.name for unit in arch.units for n in unit.nodes] == list(arch.nodes)
    in_stages = [n.name for stage in arch.stages for n in stage.nodes]
    assert in_stages == [name for name, node in arch.nodes.items() if node.stage is not None]
    assert [len(stage.layers) for stage in arch.stages] == [len(s.layers) for s in arch.plan.stages]
    assert [stage.window_out is not None for stage in arch.stages] == [False, True, False, False]
    names = [unit.name for unit in arch.units]
    assert all(source in names[: names.index(unit.name)] for unit in arch.units for source in unit.inputs)


def test_a_layer_knows_its_aggregator_and_the_branch_it_feeds(arch: Architecture) -> None:
    layers = [unit for unit in arch.units if isinstance(unit, Layer)]
    fed = [layer for layer in layers if layer.aggregate is not None]
    assert fed
    assert all(layer.stage == 2 for layer in fed)
    for layer in layers:
        assert all(isinstance(node.site, BranchSite) for node in layer.branches.values())
        assert layer.block == arch.plan.stages[layer.stage or 0].layers[layer.index][0]
        if layer.aggregate is None:
            assert layer.fed is None
            continue
        assert isinstance(layer.aggregate.site, AggregateSite)
        assert layer.branches[str(layer.fed)].inputs[1] == layer.aggregate.name


def test_passes_do_not_write_into_nodes(arch: Architecture) -> None:
    node = arch.nodes["stem"]
    for thing in (node, node.site, node.shapes, node.costs, arch.edges[0], arch.units[0], arch.stages[0]):
        for field in dataclasses.fields(thing):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, field.name, None)
