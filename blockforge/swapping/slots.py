"""What can be changed in a network: its branches, and what may stand in place of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blockforge.blocks.base import Shape
from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError
from blockforge.search.budget import cost_of
from blockforge.spec import Spec
from blockforge.swapping.edits import edited
from blockforge.weights.symmetry import Cut


@dataclass(frozen=True, slots=True)
class Slot:
    """A branch of a layer, the sources that its aggregator reads, or the width of a stage with all that reads and
    writes it.

    Attributes:
        stage, layer, branch: its numbers, in its network, stage and layer; a width has no layer (-1), sources are those
            of no branch.
        name: the path of its module.
        op: the name of its block, or `dim`.
        is_fed: whether an aggregator feeds the branch.
    """

    stage: int
    layer: int
    branch: int
    name: str
    op: str
    is_fed: bool = False

    @property
    def is_width(self) -> bool:
        """Whether it is the width of a whole stage."""
        return self.layer < 0

    @property
    def is_sources(self) -> bool:
        """Whether it is what an aggregator reads."""
        return self.branch < 0 <= self.layer


@dataclass(frozen=True, eq=False)
class Alternative:
    """What may stand in a slot.

    Attributes:
        label: in a few words: `mlp_ratio 2`.
        branch: what stands in place of the branch, written out; None: it is left out, and so is the aggregator that
            feeds it. Of a width, what the stage says: `dim`, and `blocks` with their branches. Of an aggregator's
            sources, those that stay, `sources`, and those that there are, `of`.
        cut: how its block's tensors come from those of the network's own; None: they do not. Of a width or sources, how
            all of the network's do.
        saved: multiply-adds and parameters that the network then has fewer of; milliseconds, where they were measured.
        define: the definitions that it names.
        mark: tells it from others of its label: of what it is and how it learns.
    """

    slot: Slot
    label: str
    branch: Mapping[str, Any] | None
    cut: Cut | None = None
    saved: Mapping[str, float] = field(default_factory=dict)
    define: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""

    @property
    def is_skip(self) -> bool:
        """Whether the branch is left out."""
        return self.branch is None

    @property
    def is_whole(self) -> bool:
        """Whether it changes more than a branch, so that the whole network is another."""
        return self.slot.branch < 0 or (self.is_skip and self.slot.is_fed)

    @property
    def is_foreign(self) -> bool:
        """Whether its weights are none of the network's own."""
        return self.branch is not None and self.cut is None


def slots_of(arch: Architecture) -> list[Slot]:
    """The residual branches of a network, in order."""
    slots = []
    for stage in arch.stages:
        for layer in stage.layers:
            for number, (key, node) in enumerate(layer.branches.items()):
                is_fed = layer.aggregate is not None and layer.fed == key
                slots.append(Slot(stage.index, layer.index, number, node.name, node.op, is_fed))
    return slots


class Savings:
    """What alternatives save. Layers of a stage that are of one block save the same: one of them is compiled.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
    """

    def __init__(self, arch: Architecture, spec: Spec) -> None:
        self.arch, self.spec = arch, spec
        self.known: dict[Any, Mapping[str, int] | str] = {}

    def of(self, alternative: Alternative) -> Mapping[str, int] | str:
        """Multiply-adds and parameters that the network with one alternative has fewer of; a text says why there is no
        such network, or that it costs no less."""
        key = _sort(self.arch, alternative)
        if key not in self.known:
            self.known[key] = self._asked(alternative)
        return self.known[key]

    def _asked(self, alternative: Alternative) -> Mapping[str, int] | str:
        try:
            other = compile_spec(edited(self.spec, [alternative]))
        except BlockforgeError as e:
            return str(e).partition("\n")[0].partition("]: ")[2]
        if alternative.is_foreign and _maps(other, alternative.slot) != _maps(self.arch, alternative.slot):
            return "it reads or gives another map"
        saved = {name: getattr(self.arch, name) - getattr(other, name) for name in ("macs", "params")}
        return saved if max(saved.values()) > 0 else "it costs no less"


def _maps(arch: Architecture, slot: Slot) -> list[Shape]:
    """What a branch gives and reads; an aggregator may feed it."""
    node = [*arch.stages[slot.stage].layers[slot.layer].branches.values()][slot.branch]
    return [node.out_shape, *(arch.nodes[name].out_shape for name in node.inputs)]


def priced(arch: Architecture, alternatives: Sequence[Alternative], costs: Collection[str]) -> list[Alternative]:
    """The alternatives with what they save of further costs, as `Architecture` or its deployed form tells them.

    Args:
        arch: the network, written out.
    """
    known: dict[Any, dict[str, float]] = {}
    told = []
    for alternative in alternatives:
        key = _sort(arch, alternative)
        if key not in known:
            other = compile_spec(edited(arch.source, [alternative]))
            known[key] = {cost: cost_of(arch, cost) - cost_of(other, cost) for cost in costs}
        told.append(replace(alternative, saved={**alternative.saved, **known[key]}))
    return told


def _sort(arch: Architecture, alternative: Alternative) -> Any:
    """Alternatives of one sort save the same: in layers of a stage that are of one block."""
    slot = alternative.slot
    if slot.is_width:
        return slot, alternative.label
    block = arch.plan.stages[slot.stage].layers[slot.layer][0]
    aggregate = arch.stages[slot.stage].layers[slot.layer].aggregate
    beside = aggregate.shapes if slot.is_fed and aggregate is not None else None
    return slot.stage, block, slot.branch, arch.nodes[slot.name].shapes, beside, alternative.label


def meet(one: Alternative, other: Alternative) -> bool:
    """Whether two cannot stand together: in one slot, or where one is the width of the other's stage."""
    a, b = one.slot, other.slot
    return a.stage == b.stage and (a == b or a.is_width or b.is_width)


def in_words(values: Mapping[str, Any]) -> str:
    """Parameters as a label says them: `num_heads 2, head_dim 8`."""
    return ", ".join(f"{k} {f'{v:g}' if isinstance(v, float) else v}" for k, v in values.items())
