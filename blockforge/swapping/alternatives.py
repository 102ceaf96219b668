"""What may stand in a slot with the network's own weights: thinner forms of its block, and nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from blockforge.compiler import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import AggregateSite, BranchSite
from blockforge.kernels.backends import backend
from blockforge.spec import Spec
from blockforge.swapping.edits import branch_at
from blockforge.swapping.slots import Alternative, Savings, slots_of
from blockforge.swapping.thinner import thinner
from blockforge.weights.symmetry import Cut
from blockforge.weights.transplant import last_computed

SHARES = (0.75, 0.5, 0.25)
"""Of a parameter's value, what a thinner block has."""


def alternatives_of(arch: Architecture, spec: Spec, shares: tuple[float, ...] = SHARES) -> Iterator[Alternative]:
    """What may stand in each slot: thinner forms of its block, whose weights are some of the block's, and nothing.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
    """
    forms: dict[Any, list[tuple[str, Mapping[str, Any], Cut]]] = {}
    savings = Savings(arch, spec)
    for slot in slots_of(arch):
        node, branch = arch.nodes[slot.name], branch_at(spec, arch, slot)
        key = node.shapes.placed, str(branch)
        if key not in forms:
            forms[key] = list(thinner(arch, spec, slot, shares))
        changes: list[tuple[str, Mapping[str, Any] | None, Cut | None]] = [*forms[key]]
        if _may_go(arch, node):
            changes.append(("nothing", None, None))
        for label, changed, cut in changes:
            made = Alternative(slot, label, changed, cut)
            saved = savings.of(made)
            if not isinstance(saved, str) and all(value >= 0 for value in saved.values()):
                yield replace(made, saved=saved)


def _may_go(arch: Architecture, node: Node) -> bool:
    """Whether the network can do without a branch, and without the aggregator that feeds it: the layer then passes on
    what they read, even if the branch adds to that with a scale."""
    site = node.site
    assert isinstance(site, BranchSite)
    reads = next((arch.nodes[i] for i in node.inputs if isinstance(arch.nodes[i].site, AggregateSite)), node)
    if reads.shapes.in_shape != node.shapes.out_shape:
        return False
    return site.residual.keys.skip is True or (node.written_out is not None and _passes_on(node))


@torch.no_grad()
def _passes_on(node: Node) -> bool:
    """Whether a composed block gives what it reads where its last layer gives zero: then it adds to what it reads."""
    assert node.shapes.placed is not None
    module = node.shapes.placed.build().eval()
    x = torch.randn(1, *node.shapes.placed.place[0])
    with backend("torch"):
        last = last_computed({"block": module}, lambda: module(x))
        for parameter in last["block"].parameters() if last else ():
            parameter.zero_()
        return bool(last) and torch.equal(module(x), x)
