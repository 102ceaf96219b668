"""What ties alternatives to each other beside their slots: which may not stand together, and what two save less than
each alone. The figures of a compiled network are then sums, exactly."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from blockforge.compiler import Architecture, compile_spec
from blockforge.search.budget import cost_of
from blockforge.swapping.edits import edited
from blockforge.swapping.slots import Alternative
from blockforge.units import LATENCY


@dataclass(frozen=True, slots=True)
class Refused:
    """No combination has all of some alternatives and none of others.

    Attributes:
        chosen, absent: their numbers.
    """

    chosen: tuple[int, ...]
    absent: tuple[int, ...] = ()

    def is_met(self, picked: Collection[int]) -> bool:
        """Whether a combination is one of these."""
        return all(i in picked for i in self.chosen) and not any(i in picked for i in self.absent)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two alternatives save less together than each alone, of each cost; below 0 where they save more."""

    one: int
    other: int
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Ties:
    """What holds of combinations beside what each alternative says.

    Attributes:
        refused: what no combination may be.
        overlaps: what pairs save less.
    """

    refused: tuple[Refused, ...] = ()
    overlaps: tuple[Overlap, ...] = ()

    def without(self, more: Iterable[Refused]) -> Ties:
        """The same, where more is refused."""
        return replace(self, refused=(*self.refused, *dict.fromkeys(more)))

    def allow(self, picked: Collection[int]) -> bool:
        """Whether a combination is none that is refused."""
        return not any(refused.is_met(picked) for refused in self.refused)

    def saved(self, alternatives: Sequence[Alternative], picked: Collection[int], cost: str) -> float:
        """What a combination saves."""
        twice = sum(o.costs.get(cost, 0) for o in self.overlaps if o.one in picked and o.other in picked)
        return sum(alternatives[i].saved[cost] for i in picked) - twice

    def among(self, own: Sequence[int]) -> Ties:
        """The ties of some of the alternatives, by their numbers among these, where no others are chosen."""
        place = {i: number for number, i in enumerate(own)}
        refused = [
            Refused(tuple(place[i] for i in r.chosen), tuple(place[i] for i in r.absent if i in place))
            for r in self.refused
            if all(i in place for i in r.chosen)
        ]
        overlaps = [
            replace(o, one=place[o.one], other=place[o.other])
            for o in self.overlaps
            if o.one in place and o.other in place
        ]
        return Ties(tuple(refused), tuple(overlaps))


NONE = Ties()


def ties_of(arch: Architecture, alternatives: Sequence[Alternative]) -> Ties:
    """Of a network that is written out: a layer that others read through `connect` stays, and one of a stage without a
    downsample; narrower stages overlap where one reads the other, and so does what an aggregator reads with the branch
    that it feeds, if both go."""
    overlaps = (*_overlaps(arch, alternatives), *_with_what_feeds_it(alternatives))
    return Ties(tuple(_stays(arch, alternatives)), overlaps)


def _stays(arch: Architecture, alternatives: Sequence[Alternative]) -> Iterator[Refused]:
    """Branches that may not go all together."""
    skips = {a.slot.name: i for i, a in enumerate(alternatives) if a.is_skip}
    groups = []
    for stage in arch.stages:
        plan = arch.plan.stages[stage.index]
        layers = [[node.name for node in layer.branches.values()] for layer in stage.layers]
        if plan.connect is not None:
            groups += layers
        elif plan.downsample is None:
            groups.append([name for names in layers for name in names])
    for names in groups:
        if names and all(name in skips for name in names):
            yield Refused(tuple(skips[name] for name in names))


def _overlaps(arch: Architecture, alternatives: Sequence[Alternative]) -> Iterator[Overlap]:
    """Each pair of narrower stages is compiled: what lies between them costs the product of both widths."""
    widths = [i for i, a in enumerate(alternatives) if a.slot.is_width]
    for i, j in itertools.combinations(widths, 2):
        pair = alternatives[i], alternatives[j]
        if pair[0].slot == pair[1].slot:
            continue
        both = compile_spec(edited(arch.source, pair))
        names = pair[0].saved.keys() - {LATENCY}
        costs = {n: sum(a.saved[n] for a in pair) - (cost_of(arch, n) - cost_of(both, n)) for n in names}
        if any(costs.values()):
            yield Overlap(i, j, costs)


def _with_what_feeds_it(alternatives: Sequence[Alternative]) -> Iterator[Overlap]:
    """A branch that goes takes its aggregator along, however many sources that has."""
    layers = {a.slot.name.rpartition(".")[0]: i for i, a in enumerate(alternatives) if a.is_whole and a.is_skip}
    for i, alternative in enumerate(alternatives):
        layer = alternative.slot.name.rpartition(".")[0]
        if alternative.slot.is_sources and layer in layers:
            yield Overlap(layers[layer], i, alternative.saved)
