"""A depth-first search for values of holes that keep the relations."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.bounds import UnknownError, possible
from blockforge.spec.expressions.equation import equalities, solve
from blockforge.spec.expressions.evaluation import excess
from blockforge.spec.expressions.tree import AbsentError, names
from blockforge.spec.relations.constraints import Constraint, Constraints
from blockforge.spec.relations.lookup import all_at, scalar, value_at
from blockforge.spec.values import Hole, same

_SPREAD = 64
"""Values of a hole that are tried where nothing tells which."""
_ABSENT = object()
"""Stands for a hole that is not asked for."""


class Backtracking:
    """Goes through the holes in order, and back where the relations can no longer hold.

    Attributes:
        answers: as far as they are decided.
        wanted: what a hole should be, if it can.
        steps: values that may still be tried.
        proof: try every value, and that a hole is not asked for, so that no solution means that there is none.
        complete: whether nothing was left out: without a solution there is none.
    """

    def __init__(
        self,
        constraints: Constraints,
        answers: Mapping[str, Any],
        wanted: Mapping[str, Any],
        rng: random.Random,
        steps: int,
        proof: bool = False,
    ) -> None:
        self.constraints, self.answers, self.wanted, self.rng = constraints, dict(answers), wanted, rng
        self.steps, self.proof, self.complete = steps, proof, True
        self.open: set[str] = set()

    def run(self, order: list[str]) -> dict[str, Any] | None:
        """Answers to these holes beside those that are given; None if none were found. Raises: ExpressionError."""
        self.open = set(order)
        return dict(self.answers) if self._fill(order) else None

    def _fill(self, order: list[str]) -> bool:
        if not order:
            return all(map(self._may_hold, self.constraints.all))
        name = next((n for n in order if self._determining(n)), order[0])
        rest = [n for n in order if n != name]
        self.open.discard(name)
        for value in self._values(name):
            if self.steps <= 0:
                self.complete = False
                break
            self.steps -= 1
            self.answers[name] = value
            if all(self._may_hold(c) for c in self.constraints.all if name in c.holes) and self._fill(rest):
                return True
        self.answers.pop(name, None)
        self.open.add(name)
        return False

    def _determining(self, name: str) -> Constraint | None:
        """A relation with an equality in which this hole alone is open."""
        alone = (c for c in self.constraints.all if c.holes & self.open == {name})
        return next((c for c in alone if next(equalities(c.node, self._value), None) is not None), None)

    def _values(self, name: str) -> Iterator[Any]:
        hole = self.constraints.holes[name]
        self.open.add(name)
        equality = self._determining(name)
        self.open.discard(name)
        if equality is not None and not self.proof:
            try:
                yield from self._solved(hole, equality)
                return
            except UnknownError:
                pass
        yield from self._by_nearness(hole)
        if self.proof and not _surely_asked(hole):
            yield _ABSENT

    def _solved(self, hole: Hole, equality: Constraint) -> Iterator[Any]:
        """The values that an equality leaves to a hole, those near to the wanted one first. Raises: UnknownError."""
        for left, right in equalities(equality.node, self._value):
            standing = [
                n for side in (left, right) for n in names(side) if self.constraints.direct.get(n.value) == hole.name
            ]
            if len(standing) != 1:
                continue
            try:
                low, high = solve(left, right, standing[0], self._value)
            except AbsentError:
                raise UnknownError from None
            if low == high:
                yield from _answers_for(hole, low)
            else:
                yield from (v for v in self._by_nearness(hole) if _lies_between(low, scalar(_chosen(hole, v)), high))
            return
        raise UnknownError

    def _by_nearness(self, hole: Hole) -> Iterator[Any]:
        wanted = self.wanted.get(hole.name)
        if wanted is not None:
            yield wanted
        if hole.kind in ("float", "log"):
            self.complete = False
            yield from (hole.low, hole.high, *(self.rng.uniform(hole.low, hole.high) for _ in range(4)))
            return
        if hole.kind == "choice":
            others = [label for label in hole.labels if label is not wanted]
            self.rng.shuffle(others)
            yield from others
            return
        values = range(int(hole.low), int(hole.high) + 1, hole.step)
        if len(values) > _SPREAD * _SPREAD:
            self.complete = False
            values = values[:: len(values) // (_SPREAD * _SPREAD)]
        center = wanted if wanted is not None else values[self.rng.randrange(len(values))]
        yield from sorted((v for v in values if v != wanted), key=lambda v: abs(v - center))

    def _may_hold(self, constraint: Constraint) -> bool:
        try:
            if not constraint.holes & self.open:
                return not excess(constraint.node, self._value)
            return possible(constraint.node, self._all_values)
        except AbsentError:
            return True

    def _value(self, path: Path) -> Any:
        name = self.constraints.direct.get(path)
        if name is None:
            present = {n: v for n, v in self.answers.items() if v is not _ABSENT}
            return value_at(self.constraints.tree, present, path)
        if (answer := self.answers.get(name, _ABSENT)) is _ABSENT:
            raise AbsentError
        return scalar(_chosen(self.constraints.holes[name], answer))

    def _all_values(self, path: Path) -> list[Any]:
        """All that a name may still stand for; empty: nothing. Raises: UnknownError."""
        if path in self.constraints.computed:
            raise UnknownError

        def options(hole: Hole) -> list[Any]:
            if hole.name in self.open:
                return list(hole.options) if hole.kind == "choice" else [hole.low, hole.high]
            if (answer := self.answers.get(hole.name, _ABSENT)) is _ABSENT:
                return []
            return [_chosen(hole, answer)]

        return [scalar(value) for value in all_at(self.constraints.tree, path, options)]


def _answers_for(hole: Hole, value: Any) -> Iterator[Any]:
    """The answers that make a hole this value."""
    if hole.kind == "choice":
        yield from (label for label in hole.labels if same(scalar(_chosen(hole, label)), value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        exact = int(value) if hole.kind == "int" and float(value).is_integer() else value
        if exact in hole:
            yield exact


def _lies_between(low: Any, value: Any, high: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(low <= value <= high)


def _chosen(hole: Hole, answer: Any) -> Any:
    """What a hole stands for with an answer."""
    return hole.options[hole.index(answer)] if hole.kind == "choice" else answer


def _surely_asked(hole: Hole) -> bool:
    """Whether every candidate has this hole: it stands in a stage's own key, in no choice."""
    written = hole.written or hole.path
    return len(written) == 3 and written[0] == "stages" and written[2] in ("dim", "depth", "layers")
