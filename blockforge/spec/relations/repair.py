"""Values of holes that keep `require`, found where values drawn at random hardly ever do.

A relation as `heads * head_dim == dim` leaves few of all combinations. Where a candidate breaks one, its values are
changed as little as that takes: holes are gone through in a random order, each keeps its value if the others can still
follow, and the last hole of an equality is solved for. Bounds of what is left open end a branch early.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Any, Literal

from blockforge.spec.expressions.tree import ExpressionError, Node
from blockforge.spec.model import Spec
from blockforge.spec.relations.backtracking import Backtracking
from blockforge.spec.relations.constraints import Constraints
from blockforge.spec.relations.require import violations
from blockforge.spec.values import Hole

Verdict = Literal["possible", "impossible", "unknown"]
_STEPS, _PROOF_STEPS = 4000, 20_000
"""Values tried before a search for others is given up."""
_TURNED = ("+", "-", "*", "/", "//", "negative", "up", "near", "if")
"""What can be turned around."""
_DRAWS, _RARE = 256, 16
"""Of so many random draws fewer than one in so many keep the relations of a narrow space."""


class Relations:
    """What can be done about the relations of a space."""

    def __init__(self, space: Spec) -> None:
        self.constraints = Constraints(space)

    @functools.cached_property
    def narrow(self) -> bool:
        """Whether random values hardly ever keep the relations: an equality determines one, or few draws do."""
        sides = (side for constraint in self.constraints.all for pair in constraint.equal for side in pair)
        return any(map(_determines, sides)) or self._rarely_kept()

    def mend(self, answers: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Answers near to these that keep the relations; None if none were found.

        Args:
            answers: to every hole that was asked for.
            fixed: those that stay.
        """
        rng = random.Random(repr(sorted(answers.items(), key=lambda item: item[0])))
        concerned = self._connected(answers)
        order = [n for n in self.constraints.holes if n in answers and n in concerned and n not in (fixed or {})]
        rng.shuffle(order)
        kept = {n: v for n, v in answers.items() if n not in order}
        try:
            solution = Backtracking(self.constraints, kept, answers, rng, _STEPS).run(order)
        except ExpressionError:
            return None
        return {name: solution[name] for name in answers} if solution is not None else None

    def verdict(self, fixed: Mapping[str, Any] | None = None) -> Verdict:
        """Whether any values keep the relations; `impossible` is proven."""
        kept = dict(fixed or {})
        order = [n for n in self.constraints.holes if n not in kept and self.constraints.on(n)]
        search = Backtracking(self.constraints, kept, {}, random.Random(0), _PROOF_STEPS, proof=True)
        try:
            if search.run(order) is not None:
                return "possible"
        except ExpressionError:
            return "unknown"
        return "impossible" if search.complete else "unknown"

    def _connected(self, answers: Mapping[str, Any]) -> set[str]:
        """The holes of the broken relations, and of all that share one with these."""
        broken = violations(self.constraints.tree, answers)
        connected = {name for violation in broken for name in self.constraints.all[violation.index].holes}
        size = -1
        while len(connected) > size:
            size = len(connected)
            for constraint in self.constraints.all:
                if constraint.holes & connected:
                    connected |= constraint.holes
        return connected

    def _rarely_kept(self) -> bool:
        rng, kept = random.Random(0), 0
        concerned = [hole for name, hole in self.constraints.holes.items() if self.constraints.on(name)]
        for _ in range(_DRAWS):
            answers = {hole.name: _any_value(hole, rng) for hole in concerned}
            try:
                kept += not violations(self.constraints.tree, answers)
            except ExpressionError:
                return False
        return bool(concerned) and kept < _DRAWS / _RARE


def _determines(side: Node) -> bool:
    """Whether an equality can be solved for a name in a side of it; divisibility, as in `x % y == 0`, gives none."""
    return side.kind == "name" or (side.kind in _TURNED and any(map(_determines, side.parts)))


def _any_value(hole: Hole, rng: random.Random) -> Any:
    if hole.kind == "choice":
        return rng.choice(hole.labels)
    if hole.kind == "int":
        return rng.randrange(int(hole.low), int(hole.high) + 1, hole.step)
    return rng.uniform(hole.low, hole.high)


_LATEST: list[tuple[Spec, Relations]] = []


def relations_of(space: Spec) -> Relations:
    """The relations of a space; those of the latest few are kept."""
    relations = next((known for spec, known in _LATEST if spec is space), None)
    if relations is None:
        relations = Relations(space)
        _LATEST.append((space, relations))
        del _LATEST[:-4]
    return relations
