"""What names stand for where an op is read: parameters of its definition, and the names of its place."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Shape
from blockforge.blocks.compose.written import Map, Seq, freeze, place_in, thaw
from blockforge.errors import OpError, Path
from blockforge.spec.expressions.foreign import known_names
from blockforge.spec.expressions.tree import EXAMPLE, ExpressionError
from blockforge.spec.forms import unknown_key
from blockforge.spec.values import Expr, Ref


@dataclass(frozen=True, slots=True)
class Definition:
    """A block that a spec defines: closed, but for the other definitions of its file.

    Attributes:
        params: its parameters with what they are unless a call says otherwise; `required` where a call must.
        at: where it is written.
    """

    name: str
    params: tuple[tuple[str, Any], ...]
    body: Any
    at: Path = field(default=(), compare=False)


@dataclass(frozen=True)
class Definitions:
    """Those that the ops of one file may name: its own, and those of the files that it uses, each with the definitions
    of its own file."""

    own: tuple[Definition, ...] = ()
    used: tuple[tuple[str, Definition, Definitions], ...] = ()

    @functools.cached_property
    def table(self) -> dict[str, tuple[Definition, Definitions]]:
        used = {name: (definition, home) for name, definition, home in self.used}
        return used | {d.name: (d, self) for d in self.own}

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.own, self.used))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Frame:
    """A scope. `names` and what they stand for, and the definitions that ops may name."""

    names: tuple[tuple[str, Any], ...] = ()
    definitions: Definitions = Definitions()

    def on(self, shape: Shape, out: int | None) -> Frame:
        """The same on another map: what `in`, `height` and `width` stand for; `out`: the width asked for."""
        given = dict(self.names) | {"in": shape.dim, "height": shape.height, "width": shape.width}
        given["out"] = out if out is not None else given.get("out", shape.dim)
        return Frame(tuple(given.items()), self.definitions)

    def asked(self, out: int | None) -> Frame:
        """The same where another width is asked for, if one is: what `out` stands for."""
        return self if out is None else Frame(tuple((dict(self.names) | {"out": out}).items()), self.definitions)

    def find(self, name: str) -> Any:
        """What a name stands for, as plain data. Raises: OpError."""
        for known, value in self.names:
            if known == name:
                return plain(value) if isinstance(value, Bound) else value
        text = f"nothing is called '{name}' here"
        raise OpError(text, hint=known_names(name, [k for k, _ in self.names], "names here"), code="unknown-name")

    def value(self, written: Any) -> Any:
        """What is written, read here: a plain value, or a `Bound` where ops or names are in it."""
        if isinstance(written, Ref):
            for known, value in self.names:
                if known == written.name:
                    return value
            return self.find(written.name)
        if isinstance(written, Expr):
            try:
                evaluated = written.evaluate(self.find)
            except ExpressionError as e:
                hint = None if e.hint == EXAMPLE else e.hint
                raise OpError(f"{e} in {written.text}", hint=hint, code="expression") from None
            return Bound(freeze(evaluated), self) if isinstance(evaluated, (dict, list)) else evaluated
        if isinstance(written, (Map, Seq)) or (isinstance(written, str) and written in self.definitions.table):
            return Bound(written, self)
        return written


@dataclass(frozen=True, slots=True)
class Bound:
    """Something written, and the scope that it is to be read in: an op that will be placed, or a value with names.

    Attributes:
        at: where it stands.
    """

    value: Any
    frame: Frame = Frame()
    at: Path = field(default=(), compare=False)

    def as_parameter(self) -> Any:
        """As a spec writes it."""
        return thaw(self.value)

    def __str__(self) -> str:
        """As YAML on one line."""
        value = thaw(self.value)
        return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")

    @property
    def place(self) -> Path:
        return place_in(self.value, self.at)


MAX_VALUES = 2000
"""Of one block's parameter, written out."""
MAX_NESTED = 64
"""Values, and definitions, within each other in a parameter."""


def plain(bound: Any) -> Any:
    """Plain data for a block's parameter: names replaced, a definition that is one op written out. Raises: OpError."""
    return _Plain().of(bound, 0) if isinstance(bound, Bound) else bound


class _Plain:
    """Writes out one parameter; definitions in it may multiply, so it counts."""

    def __init__(self) -> None:
        self.values = 0

    def of(self, bound: Any, depth: int) -> Any:
        if not isinstance(bound, Bound):
            return bound
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_NESTED:
            text = f"a parameter holds at most {MAX_VALUES} values, nested {MAX_NESTED} deep"
            raise OpError(text, hint="fewer definitions that call each other", code="limit")
        value, frame = bound.value, bound.frame
        op = value.get("op") if isinstance(value, Map) else value
        if isinstance(op, str) and op in frame.definitions.table:
            definition, home = frame.definitions.table[op]
            given = value.without("op") if isinstance(value, Map) else {}
            inner = called(definition, home, given, Frame(), frame)
            try:
                return self.of(Bound(definition.body, inner, definition.at), depth + 1)
            except OpError as e:
                if e.code != "unknown-name" or depth > MAX_NESTED:
                    raise
                text = f"'{op}' stands in a parameter here, which is read before the map is: {e}"
                hint = "put it into a list before or behind the block, or give the value as a parameter"
                raise OpError(text, hint=hint, code="late") from None
        if isinstance(value, Map):
            return {k: self.inside(op, k, v, frame, depth) for k, v in value.items}
        if isinstance(value, Seq):
            return [self.of(frame.value(v), depth + 1) for v in value.items]
        resolved = frame.value(value)
        return self.of(resolved, depth + 1) if resolved is not value else value

    def inside(self, op: Any, key: str, value: Any, frame: Frame, depth: int) -> Any:
        """What stands under a key of an op."""
        try:
            read = frame.value(value)
            return read.value if is_word(op, key, read) else self.of(read, depth + 1)
        except OpError as e:
            e.param = e.param if depth and e.param is not None else key
            raise


def parameter(op: Any, key: str, value: Any) -> Any:
    """What a block's parameter is given, as plain data. Raises: OpError."""
    return value.value if is_word(op, key, value) else plain(value)


def is_word(op: Any, key: str, value: Any) -> bool:
    """Whether a block's parameter is given a word that is one of its values: it means that, though a definition may be
    called so."""
    cls = registry.BLOCKS.get(op) if isinstance(op, str) else None
    if cls is None or not isinstance(value, Bound) or not isinstance(value.value, str):
        return False
    return (key, value.value) in _words(cls)


@functools.lru_cache(4096)
def _words(cls: type[AnyOp]) -> frozenset[tuple[str, Any]]:
    """The words that are values of parameters, each with its parameter."""
    todo = [(name, field.annotation) for name, field in cls.model_fields.items()]
    words: set[tuple[str, Any]] = set()
    while todo:
        name, of = todo.pop()
        inner = get_args(of)
        if get_origin(of) is Literal:
            words |= {(name, word) for word in inner}
        else:
            todo += [(name, part) for part in inner]
    return frozenset(words)


def plain_op(bound: Bound) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a block that is not composed; definitions are written out. Raises: OpError."""
    written = plain(bound)
    written = {"op": written} if isinstance(written, str) else written
    if not isinstance(written, dict) or not isinstance(name := written.get("op"), str):
        hint = "what several ops make stands where an op does: as a branch's op, a stem, downsample, head or norm"
        raise OpError("here stands one block: a name or {op: name, ...}", hint=hint, code="value")
    return name, {k: v for k, v in written.items() if k != "op"}


def called(definition: Definition, home: Definitions, given: Mapping[str, Any], place: Frame, caller: Frame) -> Frame:
    """The scope of a definition's body in a call.

    Args:
        home: the definitions of its file.
        given: the parameters that the call gives, which are read in the caller's scope; others are read in the new one,
            where the parameters before them and the names of the place have names.
        place: the names of the place alone.
    Raises: OpError for a parameter that is unknown or missing.
    """
    known = dict(definition.params)
    for key in given:
        if key not in known:
            hint = unknown_key(key, known, f"parameters of {definition.name}")
            text = f"'{definition.name}' has no parameter '{key}'"
            raise OpError(text, hint=hint, param=key, code="unknown-key")
    frame = Frame(place.names, home)
    for name, default in definition.params:
        if name in given:
            value = caller.value(given[name])
        elif default == "required":
            raise OpError(f"'{definition.name}' needs '{name}'", hint=f"as in {{op: {definition.name}, {name}: ...}}")
        else:
            value = frame.value(default)
        names = [(k, v) for k, v in frame.names if k != name]
        frame = Frame((*names, (name, value)), home)
    return frame
