"""Random samples of a space: what its networks cost, how many are valid, how many lie within a budget."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.candidates import Ask, compile_candidate
from blockforge.errors import BudgetError, SearchError, SpecError
from blockforge.search.budget import excess, none_valid
from blockforge.search.space.fit import fit
from blockforge.search.space.load import draw
from blockforge.search.space.size import enumerate_space
from blockforge.spec import Spec
from blockforge.units import COSTS, Budget

_PATIENCE = 200
"""Draws for each network that is wanted."""


@dataclass
class Sample:
    """Networks of a space, each hole's values drawn with equal chances.

    Attributes:
        drawn: how many were drawn.
        costs: MACs, params and activation bytes of each valid one.
        refused: why the others do not compile -> how many.
        mended: the draws that broke a narrow relation and were given values near to theirs that keep it.
        within: how many of the valid ones keep the budget's limits on these costs.
    """

    drawn: int = 0
    costs: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in COSTS})
    refused: Counter[str] = field(default_factory=Counter)
    mended: set[int] = field(default_factory=set)
    within: int = 0

    def mending(self, rng: random.Random) -> Callable[[Mapping[str, Any]], Ask]:
        """Counts one draw as mended, and answers as that says."""
        number = self.drawn

        def ask_of(answers: Mapping[str, Any]) -> Ask:
            self.mended.add(number)
            return lambda hole: answers[hole.name] if hole.name in answers else draw(hole, rng)

        return ask_of

    @property
    def valid(self) -> int:
        return len(self.costs["macs"])


def sample_costs(space: Spec, number: int, seed: int, budget: Budget) -> Sample:
    """Draw `number` candidates and compile them.

    Raises: SpecError if none of them is valid.
    """
    rng, sample = random.Random(seed), Sample()
    limits = budget.compiled
    errors: list[SpecError] = []
    for _ in range(number):
        sample.drawn += 1
        try:
            arch = compile_candidate(space, lambda hole: draw(hole, rng), mended=sample.mending(rng))
        except SpecError as e:
            errors.append(e)
            sample.refused[reason(e)] += 1
            continue
        for name in COSTS:
            sample.costs[name].append(getattr(arch, name))
        sample.within += all(share <= 0 for share in excess(arch, limits).values())
    if not sample.valid:
        raise none_valid(space, errors)
    return sample


def reason(error: SpecError) -> str:
    """What refuses a candidate, without its values: a relation's text, or the law that a block states."""
    first = error.diagnostics[0]
    return first.message.partition(" does not hold")[0] if first.code == "require" else first.code


def draw_specs(
    space: Spec, number: int, seed: int, budget: Budget, share: float | None = None
) -> Iterator[Architecture]:
    """`number` different random networks within the budget, with specs that say where they come from.

    Args:
        share: fit the widths so that they cost from this share of the budget to all of it.
    Raises: SearchError if the space gives too few.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    for _ in range(_PATIENCE * number):
        if len(seen) == number:
            return
        try:
            arch = compile_candidate(space, lambda hole: draw(hole, rng))
            arch = fit(arch, budget, share) if share is not None else arch
        except (SpecError, BudgetError):
            continue
        if arch.hash in seen or any(over > 0 for over in excess(arch, budget).values()):
            continue
        yield named(arch, f"{space.name}_{len(seen):04d}", {"space": space.name, "seed": seed})
        seen.add(arch.hash)
    if len(seen) < number:
        text = f"{_PATIENCE * number} draws from '{space.name}' gave {len(seen)} networks, not {number}"
        raise SearchError(f"{text}\n  hint: ask for fewer, raise the budget, or look at blockforge space {space.name}")


def distinct_networks(space: Spec) -> tuple[list[Architecture], int]:
    """Every different network of a small space, and how many combinations of answers give none.

    Raises: SearchError if the space is too large.
    """
    networks: dict[str, Architecture] = {}
    invalid = 0
    for _, arch in enumerate_space(space):
        if isinstance(arch, SpecError):
            invalid += 1
        elif arch.hash not in networks:
            networks[arch.hash] = named(arch, f"{space.name}_{len(networks):04d}", {"space": space.name})
    return list(networks.values()), invalid


def named(arch: Architecture, name: str, notes: dict[str, Any]) -> Architecture:
    """The same network under another name, with notes in its spec's `about.search`."""
    return compile_spec(arch.spec, {"name": name, "about.search": notes})


def histogram(values: list[int], bins: int = 12) -> list[tuple[float, float, int]]:
    """Bins of equal width on a logarithmic scale: from, to, how many."""
    logs = np.log(np.asarray(values, float))
    counts, edges = np.histogram(logs, bins=bins if np.ptp(logs) > 0 else 1)
    sides = np.exp(edges)
    return [(float(a), float(b), int(n)) for a, b, n in zip(sides, sides[1:], counts, strict=False)]
