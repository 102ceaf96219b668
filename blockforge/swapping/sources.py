"""Fewer sources of an aggregator: what `connect` feeds into a layer, less what comes from furthest away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.spec import Spec
from blockforge.swapping.alternatives import SHARES
from blockforge.swapping.edits import edited, feeds_of
from blockforge.swapping.slots import Alternative, Savings, Slot
from blockforge.weights.joined_symmetry import sources_between
from blockforge.weights.symmetry import Units


def fewer_sources(arch: Architecture, spec: Spec, shares: tuple[float, ...] = SHARES) -> Iterator[Alternative]:
    """Each aggregator with fewer of its sources, the nearest ones, where its tensors say which entries are of which.

    With SparX's rule that is a smaller M, and where all ganglion layers are gone a smaller S.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
        shares: of the number of sources.
    """
    savings, cuts = Savings(arch, spec), dict[Any, Units | None]()
    for stage in arch.stages:
        for layer in stage.layers:
            if (node := layer.aggregate) is None:
                continue
            sources = feeds_of(spec.tree["stages"][stage.index]["connect"], len(stage.layers), stage.index)[layer.index]
            slot = Slot(stage.index, layer.index, -1, node.name, node.op)
            for number in dict.fromkeys(max(1, round(len(sources) * share)) for share in shares):
                if number == len(sources):
                    continue
                near = sorted(sources)[-number:]
                says = {"sources": [s for s in sources if s in near], "of": [*sources]}
                made = Alternative(slot, f"reads {number} of {len(sources)}", says)
                saved = savings.of(made)
                if isinstance(saved, str) or min(saved.values()) < 0:
                    continue
                if (key := (node.shapes.placed, number)) not in cuts:
                    fewer = compile_spec(edited(spec, [made])).nodes[node.name].shapes.placed
                    assert node.shapes.placed is not None
                    assert fewer is not None
                    cuts[key] = sources_between(node.shapes.placed, fewer)
                if (cut := cuts[key]) is not None:
                    axes = tuple(replace(axis, tensor=f"{node.name}.op.{axis.tensor}") for axis in cut.axes)
                    yield replace(made, saved=saved, cut=replace(cut, axes=axes))
