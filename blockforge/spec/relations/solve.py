"""Relations solved: values of holes that keep `require`, where values drawn at random hardly ever do.

A relation as `heads * head_dim == dim` leaves few of all combinations. Where a candidate breaks one, its values are
changed as little as that takes: holes are gone through in a random order, each keeps its value if the others can still
follow, and the last hole of an equality is solved for. Bounds of what is left open end a branch early.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from blockforge.errors import Path
from blockforge.spec.bounds import UnknownError, possible, solve
from blockforge.spec.holes import holes
from blockforge.spec.model import Spec
from blockforge.spec.references import label_of
from blockforge.spec.relations import expressions
from blockforge.spec.relations.expressions import AbsentError, ExpressionError, Node
from blockforge.spec.relations.require import at, value_at, violations
from blockforge.spec.values import Hole

Verdict = Literal["possible", "impossible", "unknown"]
_STEPS, _PROOF_STEPS = 4000, 20_000
"""Values tried before a search for others is given up."""
_DRAWS, _RARE = 256, 16
"""Of so many random draws fewer than one in so many keep the relations of a narrow space."""
_SPREAD = 64
"""Values of a hole that are tried where nothing tells which."""
_ABSENT = object()
"""Stands for a hole that is not asked for."""


@dataclass(frozen=True)
class _Relation:
    node: Node
    holes: frozenset[str]
    """All that its names may depend on."""
    equal: tuple[tuple[Node, Node], ...]
    """Sides that must be equal whatever else holds."""


class Relations:
    """What `require` says of a space's holes."""

    def __init__(self, space: Spec) -> None:
        self.tree: Mapping[str, Any] = space.lifted
        self.holes = holes(space)
        self.relations = [self._read(text) for text in self.tree.get("require", ())]
        self.direct: dict[Path, str] = {}
        """A name that is a hole's value, whatever else is chosen -> the hole."""
        for relation in self.relations:
            for name in expressions.names(relation.node):
                met = list(self._met(name.value))
                if len(met) == 1 and (met[0].kind != "choice" or not any(_holds_more(o) for o in met[0].options)):
                    self.direct[name.value] = met[0].name
        self._narrow: bool | None = None

    @property
    def narrow(self) -> bool:
        """Whether random values hardly ever keep the relations: an equality determines one, or few draws do."""
        if self._narrow is None:
            self._narrow = any(_determines(side) for r in self.relations for sides in r.equal for side in sides)
            self._narrow = self._narrow or self._rarely_kept()
        return self._narrow

    def mend(self, answers: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Answers near to these that keep the relations; None if none were found.

        Args:
            answers: to every hole that was asked for.
            fixed: those that stay.
        """
        rng = random.Random(repr(sorted(answers.items(), key=lambda item: item[0])))
        concerned = self._connected(answers)
        open_ = [n for n in self.holes if n in answers and n in concerned and n not in (fixed or {})]
        rng.shuffle(open_)
        search = _Search(self, {n: v for n, v in answers.items() if n not in open_}, answers, rng, _STEPS)
        try:
            found = search.run(open_)
        except ExpressionError:
            return None
        return {name: found[name] for name in answers} if found is not None else None

    def verdict(self, fixed: Mapping[str, Any] | None = None) -> Verdict:
        """Whether any values keep the relations; `impossible` is proven."""
        given = dict(fixed or {})
        concerned = [n for n in self.holes if n not in given and any(n in r.holes for r in self.relations)]
        search = _Search(self, given, {}, random.Random(0), _PROOF_STEPS, proof=True)
        try:
            if search.run(concerned) is not None:
                return "possible"
        except ExpressionError:
            return "unknown"
        return "impossible" if search.complete else "unknown"

    def _read(self, text: str) -> _Relation:
        node = expressions.parse(text)
        met = {hole.name for name in expressions.names(node) for hole in self._met(name.value)}
        return _Relation(node, frozenset(met), tuple(_equal_sides(node)))

    def _met(self, path: Path) -> Iterator[Hole]:
        """The holes on the way to what a name stands for."""
        met: dict[str, Hole] = {}

        def every(hole: Hole) -> list[Any]:
            met[hole.name] = hole
            return list(hole.options) if hole.kind == "choice" else [hole.low]

        for _ in at(self.tree, path, every):
            pass
        yield from met.values()

    def _connected(self, answers: Mapping[str, Any]) -> set[str]:
        """The holes of the broken relations, and of all that share one with these."""
        found = {n for v in violations(self.tree, answers) for n in self.relations[v.index].holes}
        size = -1
        while len(found) > size:
            size = len(found)
            for relation in self.relations:
                if relation.holes & found:
                    found |= relation.holes
        return found

    def _rarely_kept(self) -> bool:
        rng, kept = random.Random(0), 0
        concerned = [self.holes[n] for n in self.holes if any(n in r.holes for r in self.relations)]
        for _ in range(_DRAWS):
            answers = {hole.name: _any_value(hole, rng) for hole in concerned}
            try:
                kept += not violations(self.tree, answers)
            except ExpressionError:
                return False
        return bool(concerned) and kept < _DRAWS / _RARE


class _Search:
    """A depth-first search over holes.

    Attributes:
        answers: as far as they are decided.
        wanted: what a hole should be, if it can.
        complete: whether nothing was left out: without a solution there is none.
    """

    def __init__(
        self, own: Relations, answers: dict[str, Any], wanted: Mapping[str, Any], rng: random.Random, steps: int,
        proof: bool = False,
    ) -> None:  # fmt: skip
        self.own, self.answers, self.wanted, self.rng = own, answers, wanted, rng
        self.steps, self.proof, self.complete = steps, proof, True
        self.open: set[str] = set()

    def run(self, order: list[str]) -> dict[str, Any] | None:
        self.open = set(order)
        return dict(self.answers) if self._fill(order) else None

    def _fill(self, order: list[str]) -> bool:
        if not order:
            return all(self._may_hold(r) for r in self.own.relations)
        name = next((n for n in order if self._determining(n)), order[0])
        rest = [n for n in order if n != name]
        self.open.discard(name)
        for value in self._values(name):
            if self.steps <= 0:
                self.complete = False
                break
            self.steps -= 1
            self.answers[name] = value
            if all(self._may_hold(r) for r in self.own.relations if name in r.holes) and self._fill(rest):
                return True
        self.answers.pop(name, None)
        self.open.add(name)
        return False

    def _determining(self, name: str) -> _Relation | None:
        """An equality in which this hole alone is open."""
        return next((r for r in self.own.relations if r.equal and r.holes & self.open == {name}), None)

    def _values(self, name: str) -> Iterator[Any]:
        hole = self.own.holes[name]
        self.open.add(name)
        relation = self._determining(name)
        self.open.discard(name)
        if relation is not None and not self.proof:
            try:
                yield from self._solved(hole, relation)
                return
            except UnknownError:
                pass
        yield from self._by_nearness(hole)
        if self.proof and not _surely_asked(hole):
            yield _ABSENT

    def _solved(self, hole: Hole, relation: _Relation) -> Iterator[Any]:
        """The value that an equality gives to a hole, if the hole has it."""
        for left, right in relation.equal:
            mine = [n for n in expressions.names(left) if self.own.direct.get(n.value) == hole.name]
            other = [n for n in expressions.names(right) if self.own.direct.get(n.value) == hole.name]
            if len(mine) + len(other) != 1:
                continue
            try:
                value = solve(left, right, (mine or other)[0], self._value)
            except AbsentError:
                raise UnknownError from None
            yield from _answers_for(hole, value)
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

    def _may_hold(self, relation: _Relation) -> bool:
        try:
            if not relation.holes & self.open:
                return not expressions.excess(relation.node, self._value)
            return possible(relation.node, self._all_values)
        except AbsentError:
            return True

    def _value(self, path: Path) -> Any:
        name = self.own.direct.get(path)
        if name is None:
            return value_at(self.own.tree, self._present(), path)
        if (answer := self.answers.get(name, _ABSENT)) is _ABSENT:
            raise AbsentError
        return _written(self.own.holes[name], answer)

    def _all_values(self, path: Path) -> list[Any]:
        """All that a name may still stand for; empty: nothing."""

        def options(hole: Hole) -> list[Any]:
            if hole.name in self.open:
                return list(hole.options) if hole.kind == "choice" else [hole.low, hole.high]
            if (answer := self.answers.get(hole.name, _ABSENT)) is _ABSENT:
                return []
            return [hole.options[hole.index(answer)] if hole.kind == "choice" else answer]

        return ["none" if v is None else label_of(v) for v in at(self.own.tree, path, options)]

    def _present(self) -> dict[str, Any]:
        return {n: v for n, v in self.answers.items() if v is not _ABSENT}


def _determines(side: Node) -> bool:
    """Whether an equality can be solved for a name in a side of it; divisibility, as in `x % y == 0`, gives none."""
    return side.kind == "name" or (side.kind in ("+", "-", "*", "/", "negative") and any(map(_determines, side.parts)))


def _equal_sides(node: Node) -> Iterator[tuple[Node, Node]]:
    if node.kind == "and":
        for part in node.parts:
            yield from _equal_sides(part)
    elif node.kind == "compare":
        for i, sign in enumerate(node.value):
            if sign == "==":
                yield node.parts[i], node.parts[i + 1]


def _answers_for(hole: Hole, value: Any) -> Iterator[Any]:
    """The answers that make a hole this value."""
    if hole.kind == "choice":
        yield from (label for label in hole.labels if _equal(_written(hole, label), value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        exact = int(value) if hole.kind == "int" and float(value).is_integer() else value
        if exact in hole:
            yield exact


def _written(hole: Hole, answer: Any) -> Any:
    if hole.kind != "choice":
        return answer
    option = hole.options[hole.index(answer)]
    return "none" if option is None else label_of(option)


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _holds_more(option: Any) -> bool:
    """Whether an option of a choice is more than a plain value: a name may lead into it."""
    return not isinstance(option, str | int | float | bool | None)


def _surely_asked(hole: Hole) -> bool:
    """Whether every candidate has this hole: it stands in a stage's own key, in no choice."""
    written = hole.written or hole.path
    return len(written) == 3 and written[0] == "stages" and written[2] in ("dim", "depth", "layers")


def _any_value(hole: Hole, rng: random.Random) -> Any:
    if hole.kind == "choice":
        return rng.choice(hole.labels)
    if hole.kind == "int":
        return rng.randrange(int(hole.low), int(hole.high) + 1, hole.step)
    return rng.uniform(hole.low, hole.high)


_KNOWN: list[tuple[Spec, Relations]] = []


def relations_of(space: Spec) -> Relations:
    """The relations of a space; those of the latest few are kept."""
    found = next((r for known, r in _KNOWN if known is space), None)
    if found is None:
        found = Relations(space)
        _KNOWN.append((space, found))
        del _KNOWN[:-4]
    return found
