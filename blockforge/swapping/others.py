"""Networks that a swap's answers stand beside: of the same alternatives, and trained from scratch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError
from blockforge.search.space.fit import fit
from blockforge.spec import load, resolve
from blockforge.spec.expanded import pattern_of
from blockforge.swapping.baselines import Picked, drawn, skip_alone, uniform
from blockforge.swapping.edits import written_out
from blockforge.swapping.scores import Score
from blockforge.swapping.slots import Alternative
from blockforge.swapping.targets import to_save
from blockforge.swapping.ties import Ties
from blockforge.units import Budget

RANDOM = 2
"""Random combinations of a budget."""
WIDTH, DEPTH, TAUGHT = "narrower, from scratch", "shallower, from scratch", ", with distillation"
_FILLED = (0.95, 0.85, 0.7)
"""Least shares of a budget that widths are fitted to, one after the other: those of small networks are far apart."""


@dataclass(frozen=True)
class Other:
    """A network beside an answer.

    Attributes:
        budget: as it was written.
        way: how it was made: uniform thinning, skip alone, random, or from scratch.
        expected: KL as the scores of what changed say; None: it was not made of alternatives.
        score: on the images that alternatives are scored by, before any fine-tuning.
        tested: on the test images, at the end; None: they were not touched.
    """

    budget: str
    way: str
    arch: Architecture
    expected: float | None
    score: Score
    tested: Score | None = None


def combinations(
    arch: Architecture,
    alternatives: Sequence[Alternative],
    scores: Sequence[float],
    budget: Budget,
    chosen: Sequence[int],
    ties: Ties,
    seed: int,
) -> Iterator[tuple[str, list[int]]]:
    """Other combinations for a budget, with what they are: those that there are.

    They save as much as the budget's multiply-adds and parameters ask for; of a budget on anything else, as many
    multiply-adds as the answer `chosen` does.
    """
    least: Mapping[str, float] = to_save(arch, budget) or {"macs": ties.saved(alternatives, chosen, "macs")}
    whole = {a.slot.name: arch.nodes[a.slot.name].costs.macs for a in alternatives if not a.slot.is_width}
    ways: dict[str, Picked] = {
        "uniform thinning": uniform(alternatives, whole, least, ties),
        "skip alone": skip_alone(alternatives, scores, least, ties),
        **{f"random {i + 1}": drawn(alternatives, least, seed * RANDOM + i, ties) for i in range(RANDOM)},
    }
    yield from ((way, picked) for way, picked in ways.items() if picked is not None)


def narrower(arch: Architecture, macs: int) -> Architecture | None:
    """The network with all widths scaled to so many multiply-adds; None: its blocks accept no such widths."""
    for least in _FILLED:
        with contextlib.suppress(BlockforgeError):
            return fit(compile_spec(arch.spec), Budget(macs=macs), least)
    return None


def shallower(arch: Architecture, macs: int) -> Architecture | None:
    """The network with layers left out of its deepest stages, one after the other, down to so many multiply-adds;
    None: one layer a stage costs more."""
    tree = copy.deepcopy(dict(written_out(arch.spec).tree))
    names = {s.index: [name for name, _ in s.layers] for s in resolve(load(tree)).stages if s.layers}
    while True:
        for stage, layers in names.items():
            tree["stages"][stage] |= {"depth": len(layers), "layers": pattern_of(layers)}
        used = {name for layers in names.values() for name in layers}
        tree["blocks"] = {name: block for name, block in tree["blocks"].items() if name in used}
        try:
            other = compile_spec(load(tree))
        except BlockforgeError:
            return None
        if other.macs <= macs:
            return other
        deepest = max(names, key=lambda stage: len(names[stage]))
        if len(names[deepest]) == 1:
            return None
        del names[deepest][len(names[deepest]) // 2]
