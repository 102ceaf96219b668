"""Activation memory of combinations, which is no sum over slots: what of a combination makes it exceed a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockforge.compiler import Architecture
from blockforge.compiler.costs.liveness import last_uses
from blockforge.compiler.graph.connect import STAGE_INPUT
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import AggregateSite, BranchSite
from blockforge.swapping.slots import Alternative
from blockforge.swapping.ties import Refused


def too_large(
    arch: Architecture, alternatives: Sequence[Alternative], picked: Sequence[int], other: Architecture, limit: int
) -> Iterator[Refused]:
    """For each node that holds more than a limit, the part of a combination that holds as much whatever else is chosen.

    Args:
        arch: the network. picked: the combination. other: the network with it, in the form that is limited.
        limit: in bytes.
    """
    choice = _Choice(arch, alternatives, picked, other)
    nodes = list(other.computed.values())
    until = last_uses(nodes)
    for number, node in enumerate(nodes):
        if other.live_bytes[node.name] > limit:
            yield choice.holding(node, [n for n in nodes[:number] if until[n.name] >= number])


class _Choice:
    """A combination, seen from the nodes of the network that it gives."""

    def __init__(
        self, arch: Architecture, alternatives: Sequence[Alternative], picked: Sequence[int], other: Architecture
    ) -> None:
        self.picked, self.alternatives, self.other = {*picked}, alternatives, other
        gone = {alternatives[i].slot.name for i in picked if alternatives[i].is_skip}
        self.slot = dict(zip(_branches(other), (n for n in _branches(arch) if n not in gone), strict=True))
        self.readers: dict[str, list[str]] = {}
        for node in other.nodes.values():
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node.name)

    def holding(self, node: Node, living: Sequence[Node]) -> Refused:
        """What makes a node hold what it does while other maps live: what stands in its own slot, branches of its layer
        whose maps live, as long as they are not left out, aggregators that read such maps, and how wide the stages of
        all these are. A layer before it gives a map however little of it is left, and one that others read stays."""
        exact = self._said_by(node).union(*(self._said_by(n) for n in living if isinstance(n.site, AggregateSite)))
        within = {n.name for n in living if n.site.unit == node.site.unit and isinstance(n.site, BranchSite)}
        stays = {self.slot[name] for name in within} - exact
        stages = {stage for n in (node, *living) for stage in self._stages(n)}
        chosen, absent = [], []
        for number, alternative in enumerate(self.alternatives):
            slot = alternative.slot
            is_told = slot.stage in stages if slot.is_width else slot.name in exact
            if is_told and number in self.picked:
                chosen.append(number)
            elif is_told or (slot.name in stays and alternative.is_skip) or self._frees(alternative, living):
                absent.append(number)
        return Refused(tuple(chosen), tuple(absent))

    def _frees(self, alternative: Alternative, living: Sequence[Node]) -> bool:
        """Whether an aggregator would not read a map any more that lives."""
        slot = alternative.slot
        if slot.is_width or not alternative.is_whole:
            return False
        stays = alternative.branch["sources"] if alternative.branch is not None else ()
        reader = f"stages.{slot.stage}.layers.{slot.layer}.aggregate"
        return any(
            reader in self.readers.get(n.name, ())
            and (n.layer if n.stage == slot.stage and n.layer is not None else STAGE_INPUT) not in stays
            for n in living
        )

    def _said_by(self, node: Node) -> set[str]:
        """The slots that say what a node holds: its own, or all of the layer in which it feeds one."""
        if isinstance(node.site, BranchSite):
            return {self.slot[node.name]}
        if isinstance(node.site, AggregateSite):
            layer = next(
                old.rpartition(".")[0] for new, old in self.slot.items() if new.startswith(f"{node.site.unit}.")
            )
            return {a.slot.name for a in self.alternatives if a.slot.name.startswith(f"{layer}.")}
        return set()

    def _stages(self, node: Node) -> set[int]:
        """Those whose widths a node's maps may have: its own, and where what it reads comes from and its map goes."""
        names = (node.name, *node.inputs, *self.readers.get(node.name, ()))
        return {stage for name in names if (stage := self.other.nodes[name].stage) is not None}


def _branches(arch: Architecture) -> list[str]:
    return [node.name for stage in arch.stages for layer in stage.layers for node in layer.branches.values()]
