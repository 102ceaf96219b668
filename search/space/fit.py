"""Iso-budget: the widths of a network scaled until it costs just what a budget allows.

Widths are the `dim` of every stage, and the stem's where it has one of its own. They grow and shrink by one
common factor, each in steps that its blocks accept and that are small beside it: heads and groups keep their
number, or follow where a block states their width instead. Then single steps of single widths bring the cost into the
window. Depths, ratios and everything else stay as they are, so that candidates differ in structure and not in size.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError, SpecError
from blockforge.search.budget import as_budget
from blockforge.search.space.widths import Widths, changed_widths
from blockforge.spec import Spec, SpecLike, fill
from blockforge.units import Budget

SHARE = 0.97
_STEPS = (8, 4, 2, 1)
"""The largest steps of widths: 8 where that hits the window, else 4, 2, then any; see `Widths.step`."""
_SCALINGS = 10
_CLOSE = 1.002
"""Factors between which nothing is left to try."""
_PAST_MISFIT = 1.02
"""Where widths do not compile, because blocks of two stages do not agree, the next ones are tried."""
_REACH = 16
"""Single steps up or down that a width may take behind the common factor, if few widths can."""
_TRIES = 8
_MOST = 4096
"""Combinations of single steps that are looked through; with more widths each takes fewer steps."""


def fit(source: SpecLike | Architecture, budget: Budget | str, share: float = SHARE) -> Architecture:
    """The network of a spec without holes, as wide as a budget allows.

    Args:
        source: what `compile_spec` takes, or what it gave.
        budget: limits on MACs, params or activation memory; of several the one that binds counts. Latency and
            training memory are not fitted: a search checks them of what was fitted.
        share: the least part of the budget that the result must cost, 0.5 to 1.
    Returns:
        The compiled network, with `share` <= cost / limit <= 1 for the binding limit; `spec` is its spec. One that
        lies there already is given back as it is.
    Raises:
        BudgetError: if no widths lie there, with the nearest ones. SpecError: if the spec is wrong.
    """
    arch = source if isinstance(source, Architecture) else compile_spec(source)
    budget = as_budget(budget)
    if not budget.limits:
        raise BudgetError("there is nothing to fit widths to\n  hint: give a budget of MACs, params or memory: 5GFLOPs")
    if not 0.5 <= share < 1:
        raise BudgetError(
            f"candidates cannot be fitted to {share:g} of a budget\n  hint: 0.5 to 0.99, as in --fit 0.97"
        )
    search = _Search(Widths(arch), budget, share)
    if not search.widths.start:
        raise BudgetError(f"no stage of '{arch.name}' has a dim that could be fitted\n  hint: give its stages one")
    dims = search.run()
    return arch if dims == search.widths.start else compile_spec(arch.spec, search.widths.overrides(dims))


def fitted_answers(
    space: Spec, answers: Mapping[str, Any], budget: Budget, share: float
) -> tuple[Architecture, dict[str, Any]]:
    """The network of a space's answers, fitted, and the widths that this changed. Raises: as `fit`."""
    own = compile_spec(fill(space, answers))
    fitted = fit(own, budget, share)
    return fitted, changed_widths(own, fitted)


class _Search:
    """Costs are shares of the binding limit: 1 is the whole budget."""

    def __init__(self, widths: Widths, budget: Budget, share: float) -> None:
        self.widths, self.budget, self.share = widths, budget, share
        self.aim = math.sqrt(share)  # the middle, as costs multiply
        self.known: dict[tuple[int, ...], float | None] = {}

    def run(self) -> tuple[int, ...]:
        """Widths in the window. Raises: BudgetError."""
        start = self.cost(self.widths.start)
        if start is None:
            raise AssertionError("what was compiled compiles again")
        if self.fits(start):
            return self.widths.start
        for hold, most, tied in itertools.product((False, True), _STEPS, (False, True)):
            held = self.fixed if hold else frozenset()
            if hold and not held:
                break
            for nearest in self.scale(most, tied, held):
                if (dims := self.refine(nearest, most)) is not None:
                    return dims
        raise self.impossible()

    @functools.cached_property
    def fixed(self) -> frozenset[int]:
        """The groups that do not change alone: something in the network states their widths once more."""
        start = self.widths.start
        return frozenset(i for i in range(len(start)) if not self._gain(start, i, self.widths.step(i, start[i], 1)))

    def fits(self, cost: float | None) -> bool:
        return cost is not None and self.share <= cost <= 1

    def cost(self, dims: tuple[int, ...]) -> float | None:
        """None: such a network does not compile."""
        if dims not in self.known:
            try:
                costs = self.widths.costs(dims, self.budget.limits)
                self.known[dims] = max(costs[name] / limit for name, limit in self.budget.limits.items())
            except SpecError:
                self.known[dims] = None
        return self.known[dims]

    def scale(self, most: int, tied: bool, held: frozenset[int]) -> list[tuple[int, ...]]:
        """By one factor as near to the aim as it leads, from below and from above, the nearest first: a secant on
        logarithmic scales, between known bounds."""
        factor, power = 1.0, 2.0
        low, high = 0.0, math.inf  # factors that cost too little and too much
        before: tuple[float, float] | None = None
        best: dict[bool, tuple[float, tuple[int, ...]]] = {}
        for _ in range(_SCALINGS):
            dims = self.widths.scaled(factor, most, tied, held)
            cost = self.cost(dims)
            if cost is None:
                factor *= _PAST_MISFIT
                continue
            miss = math.log(cost / self.aim)
            best[miss < 0] = min(best.get(miss < 0, (math.inf, dims)), (abs(miss), dims))
            if self.fits(cost):
                break
            low, high = (factor, high) if miss < 0 else (low, factor)
            if before is not None and miss != before[1]:
                power = min(4.0, max(0.5, (miss - before[1]) / math.log(factor / before[0])))
            before = (factor, miss)
            factor *= math.exp(-miss / power)
            if not low < factor < high:
                factor = math.sqrt(low * high)
            if high < low * _CLOSE or factor * max(self.widths.start) < 1:
                break
        return [dims for _, dims in sorted(best.values())]

    def refine(self, dims: tuple[int, ...], most: int) -> tuple[int, ...] | None:
        """Single steps of single widths, the smallest change first, from what one step of each alone costs."""
        at = self.cost(dims)
        if at is None or self.fits(at):
            return dims if at is not None else None
        steps = [self.widths.step(i, dim, most) for i, dim in enumerate(dims)]
        gains = [self._gain(dims, i, step) for i, step in enumerate(steps)]
        free = sum(gain != 0 for gain in gains)
        reach = next(r for r in range(_REACH, 0, -1) if r == 1 or (2 * r + 1) ** free <= _MOST)
        ladders = [
            self.widths.ladder(i, dim, step, reach) if gain else [dim]
            for i, (dim, gain, step) in enumerate(zip(dims, gains, steps, strict=True))
        ]
        drift = math.log(at)
        for _ in range(_TRIES):
            hit = next((known for known, cost in self.known.items() if self.fits(cost)), None)
            chosen = hit or next(self._moves(dims, ladders, gains, drift), None)
            if chosen is None or hit:
                return hit
            cost = self.cost(chosen)
            if cost is not None:  # the parts act together a little more, or less, than each alone
                drift += (math.log(cost) - drift - _sum(gains, dims, chosen)) / 2
        return None

    def _gain(self, dims: tuple[int, ...], i: int, step: int) -> float:
        """Change of the cost's logarithm for each unit of the width's, by the next wider or narrower one; 0 where
        neither compiles."""
        here = self.cost(dims)
        for other in (d for d in self.widths.ladder(i, dims[i], step, 1) if d != dims[i]):
            cost = self.cost((*dims[:i], other, *dims[i + 1 :]))
            if cost is not None and here is not None:
                return math.log(cost / here) / math.log(other / dims[i])
        return 0.0

    def _moves(
        self, dims: tuple[int, ...], ladders: list[list[int]], gains: list[float], drift: float
    ) -> Iterator[tuple[int, ...]]:
        """Untried widths that should lie in the window: well inside first, then by how little they change."""
        low, high = math.log(self.share), 0.0
        margin = (high - low) / 8
        moves = []
        for other in itertools.islice(itertools.product(*ladders), _MOST):
            predicted = drift + _sum(gains, dims, other)
            if other not in self.known and low <= predicted <= high:
                change = sum(math.log(b / a) ** 2 for a, b in zip(dims, other, strict=True))
                moves.append((min(predicted - low, high - predicted) < margin, change, other))
        yield from (other for *_, other in sorted(moves))

    def impossible(self) -> BudgetError:
        """What to say: the nearest widths below and above, or the narrowest."""
        known = sorted((cost, dims) for dims, cost in self.known.items() if cost is not None)
        below = [k for k in known if k[0] <= 1][-1:]
        above = [k for k in known if k[0] > 1][:1]
        lines = [f"  widths {', '.join(map(str, dims))} cost {cost:.1%} of it" for cost, dims in (*below, *above)]
        where = f"{self.share:.0%} to 100% of {self.budget}"
        if not below:
            text = f"'{self.widths.name}' cannot be made narrow enough for {where}"
            hint = "raise the budget, or take fewer layers"
        elif not above:
            text = f"'{self.widths.name}' cannot be made wide enough for {where}"
            hint = "lower the budget, or take more layers"
        else:
            text = f"'{self.widths.name}' has no widths that cost {where}"
            hint = "a lower share, or fewer heads and groups, which leave finer steps"
        return BudgetError("\n".join([text, *lines, f"  hint: {hint}"]))


def _sum(gains: list[float], dims: tuple[int, ...], other: tuple[int, ...]) -> float:
    return sum(g * math.log(b / a) for g, a, b in zip(gains, dims, other, strict=True) if a != b)
