"""A composite at a place -> its program: names replaced, definitions opened, absent ops left out."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import ConfigDict, model_validator

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Kind, Mixer, Shape
from blockforge.blocks.compose.frame import Bound, Frame, called, parameter, plain_op
from blockforge.blocks.compose.members import called_by, key_of_op, named, truth, width
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.steps import INSIDE, Steps, is_norm_without_bias, not_inside
from blockforge.blocks.compose.written import Map, Seq, freeze, parts_of, place_in
from blockforge.blocks.part import Part
from blockforge.errors import OpError, Path, did_you_mean
from blockforge.spec.schema_errors import shown
from blockforge.spec.values import EARLY, Expr, Ref

MAX_DEPTH = 64
"""Ops within each other, those that definitions and parameters stand for included."""
MAX_OPS = 20_000
"""Read while one composite is written out, those included that leave no part: definitions may multiply."""
_OWN = ("op", "dim", "when")
_OF_LAYER = (*EARLY, "drop_path", "out")
"""Names of the place that a definition sees as its caller does."""
_ABSENT = (None, "none")


class Composite(OfParts[Shape, int | None], Part):
    """A part made of parts. Parameters of the type `Bound` are ops, placed where `expand` says."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @classmethod
    @functools.cache
    def written(cls) -> frozenset[str]:
        """The parameters that are ops, or may be."""
        return frozenset(n for n, f in cls.model_fields.items() if Bound in (f.annotation, *get_args(f.annotation)))

    @model_validator(mode="before")
    @classmethod
    def _bound(cls, data: Any) -> Any:
        """What is written as plain data is read without names."""
        ops = cls.written()
        return {k: v if isinstance(v, Bound) or k not in ops else Bound(freeze(v)) for k, v in data.items()}

    @abstractmethod
    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        """Add the parts to a program; they read the value `x`. Gives the value that is the result."""

    def as_program(self, shape: Shape, dim: int | None) -> Program:
        return _program(self, shape, dim)


@functools.lru_cache(16_384)
def _program(op: Composite, shape: Shape, dim: int | None) -> Program:
    """See `Composite.as_program`; equal composites at equal places are written out once."""
    build = Builder(shape)
    return build.finish(build.noted(lambda: op.expand(build, 0, dim, ()), 0, dim))


@functools.lru_cache(4096)
def read_by(cls: type[AnyOp]) -> tuple[frozenset[str], Mapping[str, str]]:
    """The parameters of a class that are ops, and those that take what a name of the place stands for."""
    ops = cls.written() if issubclass(cls, Composite) else frozenset()
    return ops, cls.of_place if issubclass(cls, Part) else {}


@functools.lru_cache(4096)
def _standing(made: AnyOp, before_norm: bool) -> AnyOp:
    """What an op is as a part of a block, perhaps right before a norm."""
    made = (made.as_part() or made) if isinstance(made, Mixer) else made
    return made.before_norm() if before_norm and isinstance(made, Part) else made


def _called(op: str, params: Mapping[str, Any], frame: Frame) -> str:
    """A call of a definition, in words."""
    given = ", ".join(f"{k} {Bound(v, frame)}" for k, v in list(params.items())[:4])
    return f"'{op}'{f' with {given}' if given else ''}"[:120]


def _parameter(op: str, key: str, value: Any, frame: Frame, at: Path) -> Any:
    """What a call gives to a parameter. Raises: OpError, where it is written."""
    try:
        return parameter(op, key, frame.value(value))
    except OpError as e:
        raise e.placed_at((*at, key)) from None


def _together(errors: registry.ParamsError, params: Mapping[str, Any], at: Path) -> OpError:
    """The mistakes of one call, each where it stands; what is written without names is wrong on any map."""
    mistakes: list[OpError] = []
    for where, e in errors.each():
        read = parts_of(params.get(str(where[0]))) if where else ()
        e.is_of_text = e.is_of_text or not any(isinstance(p, Ref | Expr) for p in read)
        mistakes.append(e.placed_at((*at, *where)))
    first, *first.also = mistakes
    return first


class Builder(Steps):
    """Writes the program of one composite, whose map is the value 0."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.depth, self.ops = 0, 0
        self.before_norm = False

    def add(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...], frame: Frame | None = None) -> int:
        """An op that reads the value `x` and is asked for `dim` channels. `name`: of the module that it becomes."""
        at = bound.place
        self.depth += 1
        try:
            self._count(1)
            return self.noted(lambda: self._added(bound.value, frame or bound.frame, at, x, dim, name), x, dim, at)
        finally:
            self.depth -= 1

    def noted(self, written: Callable[[], int], x: int, dim: int | None, at: Path = ()) -> int:
        """The value that a function gives, or where that finds a mistake one that nobody knows. `at`: where it stands,
        `x`: what it reads. Raises: OpError for what asks for too much."""
        known = len(self.mistakes.found)
        try:
            return written()
        except OpError as e:
            if e.code == "limit":
                raise e.placed_at(at) from None
            follows = x in self.mistakes.unknown or len(self.mistakes.found) > known
            self.mistakes.note(e.placed_at(at), follows=follows)
            return self.unknown(x, dim)

    def _added(self, value: Any, scope: Frame, at: Path, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        if isinstance(value, Seq):
            return self.chain(Bound(value, scope, at), x, dim, name)
        if isinstance(value, Map):
            return self._mapping(value, scope, at, x, dim, name)
        op = scope.value(value)
        if isinstance(op, Bound):
            if op.value is value and isinstance(value, str):
                return self.call(value, {}, scope, at, x, dim, name)
            return self.add(Bound(op.value, op.frame, place_in(op.value, at)), x, dim, name)
        if op in _ABSENT:
            return x
        if not isinstance(op, str):
            raise OpError(f"{shown(op)} is no op", hint="an op is a name, {op: name, ...} or a list", code="value")
        return self.call(op, {}, scope, at, x, dim, name)

    def _count(self, ops: int) -> None:
        """Refuse what asks for too much before it is written out. Raises: OpError."""
        self.ops += ops
        if self.ops > MAX_OPS:
            raise OpError(f"a block reads at most {MAX_OPS} ops", hint="fewer repetitions", code="limit")
        if self.depth > MAX_DEPTH:
            hint = "fewer definitions that call each other"
            raise OpError(f"ops are more than {MAX_DEPTH} deep in each other", hint=hint, code="limit")

    def _mapping(self, value: Map, scope: Frame, at: Path, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        if "op" not in value:
            raise OpError("an op is missing", hint="an op is a name, {op: name, ...} or a list", code="value")
        if "when" in value and not truth(key_of_op(value, "when", scope, at), at):
            return x
        is_asked = "dim" in value
        if is_asked:
            dim = width(key_of_op(value, "dim", scope, at))
        op, rest = value.get("op"), value.without(*_OWN)
        if not isinstance(op, str):
            op_name = scope.value(op)
            if isinstance(op_name, str):
                op = op_name
        if op in _ABSENT and not rest:
            y = x
        elif isinstance(op, str):
            y = self.call(op, rest, scope, at, x, dim, name)
        elif rest:
            text = f"'{next(iter(rest))}' stands beside an op that is not a name"
            raise OpError(text, hint="put it into the op itself", param=next(iter(rest)), code="unknown-key")
        else:
            y = self.add(Bound(op, scope, (*at, "op")), x, dim, name)
        if is_asked and self.shapes[y].dim != dim and y not in self.mistakes.unknown:
            given = self.shapes[y].dim
            hint = "a conv or a linear gives any width"
            raise OpError(
                f"'{called_by(Bound(value, scope))}' gives {given} channels, not {dim}", hint=hint, param="dim"
            )
        return y

    def chain(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        """Ops in a row. Nobody asks them for a width: they say it themselves."""
        members = self.members(bound)
        present = [(n, m) for n, m in members if not self.is_absent(m)]
        for i, (member_name, member) in enumerate(present):
            asked = dim if len(members) == 1 else None
            self.before_norm = is_norm_without_bias(present[i + 1][1] if i + 1 < len(present) else None)
            x = self.add(member, x, asked, (*name, member_name))
        return x

    def call(
        self, op: str, params: Mapping[str, Any], frame: Frame, at: Path, x: int, dim: int | None, name: tuple[str, ...]
    ) -> int:
        """A definition or a registered op by its name."""
        before_norm, self.before_norm = self.before_norm, False
        if op in frame.definitions.table:
            return self._definition(op, params, frame, at, x, dim, name)
        made = self._made(op, params, frame, at, before_norm)
        if isinstance(made, Composite):
            return made.expand(self, x, dim, name)
        return x if made.passes else self.step(made, (x,), dim, name or (op,), at)

    def _definition(
        self, op: str, params: Mapping[str, Any], frame: Frame, at: Path, x: int, dim: int | None, name: tuple[str, ...]
    ) -> int:
        definition, home = frame.definitions.table[op]
        shape = self.shapes[x]
        outer = Frame(tuple((k, v) for k, v in frame.names if k in _OF_LAYER))
        place = outer.on(shape, dim if dim is not None else shape.dim)
        inner = called(definition, home, params, place, frame)
        with self.mistakes.inside(lambda: _called(op, params, frame), at):
            return self.add(Bound(definition.body, inner, definition.at), x, dim, name)

    def _made(self, op: str, params: Mapping[str, Any], frame: Frame, at: Path, before_norm: bool) -> AnyOp:
        if op not in registry.BLOCKS:
            known, defined = registry.blocks(*INSIDE), frame.definitions.table
            hint = did_you_mean(op, [n for n in known if n not in defined], what="known here", first=defined)
            raise OpError(f"there is no op named '{op}'", hint=hint, code="unknown-op")
        if (kind := registry.BLOCKS[op].kind) not in INSIDE and op not in registry.TWINS:
            raise not_inside(op, kind)
        cls = registry.get(op, *INSIDE)
        ops, of_place = read_by(cls)
        given: dict[str, Any] = {
            key: Bound(value, frame, (*at, key)) if key in ops else _parameter(op, key, value, frame, at)
            for key, value in params.items()
        }
        for key, place_name in of_place.items():
            if key not in given and (place_value := dict(frame.names).get(place_name)) is not None:
                given[key] = place_value
        try:
            made = registry.make(op, given, *INSIDE)
        except registry.ParamsError as errors:
            raise _together(errors, params, at) from None
        return _standing(made, before_norm)

    def inner(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...], frame: Frame) -> int:
        """The op of a wrapper: a list's members, or the one op under its name, read in a scope of the wrapper's."""
        value = Seq((bound.value,), bound.at) if isinstance(bound.value, Map) else bound.value
        return self.chain(Bound(value, frame, bound.place), x, dim, name)

    def made(self, bound: Bound, *kinds: Kind) -> AnyOp:
        """An op that is a single block, not placed yet."""
        try:
            name, params = plain_op(bound)
            return registry.make(name, params, *kinds)
        except registry.ParamsError as errors:
            raise _together(errors, params, bound.place) from None
        except OpError as e:
            raise e.placed_at(bound.place) from None

    def members(self, bound: Bound) -> list[tuple[str, Bound]]:
        """The members of a list or a mapping of ops, see `named`."""
        members = list(named(bound))
        self._count(len(members))
        return members

    def is_absent(self, bound: Bound) -> bool:
        """Whether `when` leaves an op out."""
        value, frame = bound.value, bound.frame
        if isinstance(value, Map) and "when" in value:
            return not truth(key_of_op(value, "when", frame, bound.place), bound.place)
        if isinstance(value, Map) and "op" in value and len(value.items) == 1:
            return value.get("op") in _ABSENT
        if isinstance(value, (Map, Seq, str)):
            return False
        op = frame.value(value)
        return self.is_absent(op) if isinstance(op, Bound) else op in _ABSENT
