"""References replaced and holes asked for, one value at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from blockforge.errors import Path, Report, format_path
from blockforge.spec.expressions.foreign import known_names
from blockforge.spec.expressions.tree import EXAMPLE, ExpressionError
from blockforge.spec.model import BranchSpec
from blockforge.spec.reporting import NOWHERE, Origins, inside, report_at
from blockforge.spec.values import LATE, Expr, Hole, Ref

OF_BRANCHES = frozenset(BranchSpec.model_fields) - {"op", "dim"}
"""Keys that mean something beside an op that is left out."""
Ask = Callable[[Hole], Any]
"""Gives a value for a hole: a label of a choice, or a number in its range."""

MAX_NESTING = 100
MAX_VALUES = 100_000
"""Written out, in one spec: a few lines of `let` can double a value with every line."""
_KNOWN = {
    "layer": "blocks, where a layer uses them", "depth": "stages, behind their dim, depth and layers",
    "stage": "stages and what they use", "classes": "stages, skips, stage_norm and heads, and what they use",
    **dict.fromkeys(LATE, "ops"),
}  # fmt: skip
"""Names of places, and where they have values."""


def is_op(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is an op that may be left out."""
    return "op" in value and "when" in value


class FailedError(Exception):
    """A part that could not be resolved; its errors are in the report."""


class Scope:
    """Names that `let` gives: a stage's own before the spec's; behind them those of the place, as far as they are
    known."""

    def __init__(
        self, own: Mapping[str, Any], path: Path, outer: Scope | None = None, place: Mapping[str, Any] | None = None
    ) -> None:
        self.own, self.path, self.outer, self.place = own, path, outer, place or {}

    def with_place(self, place: Mapping[str, Any]) -> Scope:
        """The same names at a place: `{"layer": 3, "depth": 12, "stage": 2}`."""
        return Scope(self.own, self.path, self.outer, {**self.place, **place})

    def find(self, name: str) -> tuple[Any, Path] | None:
        """The value of a name and where it is given."""
        if name in self.own:
            return self.own[name], (*self.path, name)
        return self.outer.find(name) if self.outer else None

    def names(self) -> list[str]:
        return [*self.own, *(self.outer.names() if self.outer else [])]


class Values:
    """Replaces references, expressions and holes. Each hole is asked for once; `answers` keeps what it got.

    An expression with a name that only the maps give stays one, of that name alone.

    Attributes:
        used: names of places that were asked for.
    """

    def __init__(self, report: Report, ask: Ask | None) -> None:
        self.report, self.ask = report, ask
        self.answers: dict[str, Any] = {}
        self.trail: list[Path] = []
        self.used: set[str] = set()
        self.nesting, self.room, self.muted = 0, MAX_VALUES, 0

    def deep(self, value: Any, path: Path, scope: Scope, origins: Origins) -> Any:
        """`value` with all references, expressions and holes in it replaced. Raises: FailedError."""
        if isinstance(value, Ref | Hole):
            return self._from_elsewhere(value, path, scope, origins, self.deep)
        if isinstance(value, Expr):
            return self._computed(value, path, scope, origins)
        if not isinstance(value, dict | list):
            return value
        self.room -= len(value)
        self.nesting += 1
        try:
            if self.room < 0 or self.nesting > MAX_NESTING:
                self._too_much(path)
            if isinstance(value, dict):
                is_out = is_op(value) and self.deep(value["when"], (*path, "when"), scope, Origins()) is False
                return self._each(value, is_out, lambda k, v: self.deep(v, (*path, k), scope, origins))
            return [self.deep(v, (*path, i), scope, origins) for i, v in enumerate(value)]
        finally:
            self.nesting -= 1

    def shallow(self, value: Any, path: Path, scope: Scope, origins: Origins) -> Any:
        """`value` itself replaced if it is a reference, an expression or a hole; what lies in it stays as it is."""
        if isinstance(value, Ref | Hole):
            return self._from_elsewhere(value, path, scope, origins, self.shallow)
        if isinstance(value, Expr):
            return self._computed(value, path, scope, origins)
        return value

    def _computed(self, expr: Expr, path: Path, scope: Scope, origins: Origins) -> Any:
        """The value of an expression, or an expression of the late names in it. A name is looked up where it counts."""
        known: dict[str, Any] = {}

        def look_up(name: str) -> Any:
            if name not in known:
                known[name] = self.deep(Ref(name, expr.written), path, scope, Origins())
            return known[name]

        try:
            value = expr.fold(look_up)
        except ExpressionError as e:
            within = functools.partial(inside, text=expr.text, column=e.column, length=e.length)
            hint = None if e.hint == EXAMPLE else e.hint
            report_at(self.report, NOWHERE, "expression", str(e), expr.written, hint=hint, within=within)
            raise FailedError from None
        except RecursionError:
            self._too_much(path)
        origins.add(path, expr.written)
        origins.computed.add(path)
        return value

    def _of_place(self, ref: Ref, scope: Scope) -> Any:
        """What a place gives for a name that no `let` does."""
        self.used.add(ref.name)
        if ref.name in LATE:
            return Expr.of_name(ref.name, ref.written)
        if ref.name in scope.place:
            return scope.place[ref.name]
        hint = f"{ref.name} is known inside {_KNOWN[ref.name]}"
        self._fail("unknown-name", f"${ref.name} has no value here, and no let gives one", ref.written, hint)

    def filled(self, value: Any, path: Path) -> Any:
        """`value` with its holes filled; references in it, which are not the spec's, stay. Raises: FailedError."""
        if isinstance(value, Hole):
            return self.filled(self._fill(value)[0], path)
        if isinstance(value, dict):
            is_out = is_op(value) and self.filled(value["when"], path) is False
            return self._each(value, is_out, lambda k, v: self.filled(v, (*path, k)))
        return [self.filled(v, (*path, i)) for i, v in enumerate(value)] if isinstance(value, list) else value

    def _from_elsewhere(
        self, value: Ref | Hole, path: Path, scope: Scope, origins: Origins, go_on: Callable[..., Any]
    ) -> Any:
        if isinstance(value, Ref) and value.name in _KNOWN and scope.find(value.name) is None:
            return self._of_place(value, scope)
        given, at = self._reference(value, scope) if isinstance(value, Ref) else self._fill(value)
        if len(self.trail) >= MAX_NESTING:
            self._too_much(path)
        self.trail.append(at)
        below = Origins()
        try:
            # what a name stands for is known by its own path, a choice by the path of its hole
            resolved = go_on(given, at if isinstance(value, Ref) else path, scope, below)
        finally:
            self.trail.pop()
        self.room -= len(below.table)
        origins.add(path, at, below if isinstance(value, Ref) else None)
        if isinstance(value, Hole):
            origins.table.update(below.table)
            origins.computed |= below.computed
        return resolved

    def _reference(self, ref: Ref, scope: Scope) -> tuple[Any, Path]:
        binding = scope.find(ref.name)
        if binding is None:
            known = known_names(ref.name, set(scope.names()), "names")
            if scope.outer is None:
                self._fail("unknown-name", f"no let gives ${ref.name}", ref.written, known)
            stage = format_path(scope.path[:-1])
            hint = f"give it in {stage}.let or in let; {known}"
            self._fail("unknown-name", f"{stage} needs ${ref.name}, which no let gives it", ref.written, hint)
        if binding[1] in self.trail:
            loop = self.trail[self.trail.index(binding[1]) :]
            way = " -> ".join(f"${p[-1]}" for p in (*loop, binding[1]) if p[-2:-1] == ("let",))
            hint = "give one of them a value that does not lead back"
            self._fail("let-cycle", f"${ref.name} refers to itself: {way}", min(loop, key=str), hint)
        return binding

    def _each(self, value: Mapping[str, Any], is_out: bool, of: Callable[[str, Any], Any]) -> dict[str, Any]:
        """`of` each value of a mapping. `is_out`: it is an op that is left out, whose holes nobody is asked for."""
        parts = {}
        for key, part in value.items():
            is_muted = is_out and key not in OF_BRANCHES
            self.muted += is_muted
            try:
                parts[key] = of(key, part)
            finally:
                self.muted -= is_muted
        return parts

    def _fill(self, hole: Hole) -> tuple[Any, Path]:
        """The value of a hole and where it is written."""
        if self.muted and hole.name not in self.answers:
            if hole.kind != "choice":
                return hole.low, hole.written
            return hole.options[0], (*hole.written, *hole.way_to(0))
        if self.ask is None:
            self._fail("hole", f"'{hole.name}' is a hole", hole.written, _fill_hint(hole))
        if hole.name not in self.answers:
            self.answers[hole.name] = self.ask(hole)
        answer = self.answers[hole.name]
        if answer not in hole:
            hint = f"its values: {hole.values()}"
            self._fail("hole", f"{answer!r} is not a value of the hole '{hole.name}'", hole.written, hint)
        if hole.kind != "choice":
            return answer, hole.written
        index = hole.index(answer)
        return hole.options[index], (*hole.written, *hole.way_to(index))

    def _too_much(self, path: Path) -> NoReturn:
        if self.room < -MAX_VALUES:  # it was said; what is left of the spec is not looked at
            raise FailedError
        self.room = -2 * MAX_VALUES
        hint = f"at most {MAX_VALUES} values, nested {MAX_NESTING} deep, once every $name is written out"
        self._fail("limit", "references make this value too large", path[:4], hint)

    def _fail(self, code: str, message: str, path: Path, hint: str | None = None) -> NoReturn:
        report_at(self.report, NOWHERE, code, message, path, hint=hint)
        raise FailedError


def _fill_hint(hole: Hole) -> str:
    return f"fill it: --set {hole.name}=VALUE (values: {hole.values()}); or search: blockforge search FILE"
