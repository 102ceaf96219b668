"""A composite at a place -> its program: names replaced, definitions opened, absent ops left out."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import ConfigDict, model_validator
from torch import nn

from blockforge.blocks import registry
from blockforge.blocks.base import Aggregator, AnyOp, Cost, Kind, MapOp, Mixer, Norm, Placed, Reducing, Shape
from blockforge.blocks.compose.frame import Bound, Frame, called, plain
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.compose.written import Map, Seq, freeze, place_in
from blockforge.blocks.facts import facts
from blockforge.blocks.part import Join, Part
from blockforge.errors import OpError, Path, did_you_mean

MAX_STEPS = 2000
"""Of one composite."""
MAX_DEPTH = 64
"""Ops within each other, those that definitions and parameters stand for included."""
MAX_OPS = 20_000
"""Read while one composite is written out, those included that leave no part: definitions may multiply."""
INSIDE: tuple[Kind, ...] = ("part", "join", "act", "norm", "mixer", "ffn", "downsample", "stem")
"""What may stand inside a block, and so wherever a block stands but for norms and aggregators."""
_OWN = ("op", "dim", "when")
_ABSENT = (None, "none")


class Composite(Part):
    """A part made of parts. Parameters of the type `Bound` are ops, placed where `expand` says."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @classmethod
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

    def program(self, shape: Shape, dim: int | None) -> Program:
        build = Builder(shape)
        build.finish(self.expand(build, 0, dim, ()))
        return Program(shape, tuple(build.steps))

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return program(self, shape, dim).out_shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return program(self, shape, dim).cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return program(self, shape, dim).workspace()

    def num_parts(self, shape: Shape, dim: int | None) -> int:
        return len(program(self, shape, dim).steps)

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        from blockforge.blocks.compose.module import Composed

        return Composed(program(self, shape, dim))


@functools.lru_cache(16_384)
def program(op: Composite, shape: Shape, dim: int | None) -> Program:
    """See `Composite.program`; equal composites at equal places are written out once."""
    return op.program(shape, dim)


class Builder:
    """Writes the program of one composite. Values are numbers: 0 is what it reads, n what the n-th step gives."""

    def __init__(self, shape: Shape) -> None:
        self.shapes, self.tiles = [shape], [1]
        self.steps: list[Step] = []
        self.depth, self.ops = 0, 0
        self.names: dict[tuple[str, ...], int] = {}
        self.is_shared = False
        self.before_norm = False
        self.shifted_by: int | None = None

    # --- ops

    def add(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...], frame: Frame | None = None) -> int:
        """An op that reads the value `x` and is asked for `dim` channels. `name`: of the module that it becomes."""
        at = bound.place
        self.depth += 1
        try:
            self._count(1)
            return self._added(bound.value, frame or bound.frame, at, x, dim, name)
        except OpError as e:
            raise e.placed_at(at) from None
        finally:
            self.depth -= 1

    def _added(self, value: Any, scope: Frame, at: Path, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        if isinstance(value, Seq):
            return self.chain(Bound(value, scope, at), x, dim, name)
        if isinstance(value, Map):
            return self._mapping(value, scope, at, x, dim, name)
        found = scope.value(value)
        if isinstance(found, Bound):
            if found.value is value and isinstance(value, str):
                return self.call(value, {}, scope, at, x, dim, name)
            return self.add(Bound(found.value, found.frame, place_in(found.value, at)), x, dim, name)
        if found in _ABSENT:
            return x
        if not isinstance(found, str):
            raise OpError(f"{found!r} is no op", hint="an op is a name, {op: name, ...} or a list", code="value")
        return self.call(found, {}, scope, at, x, dim, name)

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
        if "when" in value and not _truth(plain(scope.value(value.get("when")))):
            return x
        own = plain(scope.value(value.get("dim"))) if "dim" in value else None
        if own is not None:
            dim = _width(own)
        op, rest = value.get("op"), value.without(*_OWN)
        if not isinstance(op, str):
            found = scope.value(op)
            if isinstance(found, str):
                op = found
        if isinstance(op, str):
            y = self.call(op, rest, scope, at, x, dim, name)
        elif rest:
            text = f"'{next(iter(rest))}' stands beside an op that is not a name"
            raise OpError(text, hint="put it into the op itself", param=next(iter(rest)), code="unknown-key")
        else:
            y = self.add(Bound(op, scope, (*at, "op")), x, dim, name)
        if own is not None and self.shapes[y].dim != dim:
            given = self.shapes[y].dim
            hint = "a conv or a linear gives any width"
            raise OpError(f"'{_called(value, scope)}' gives {given} channels, not {dim}", hint=hint, param="dim")
        return y

    def chain(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        """Ops in a row. Nobody asks them for a width: they say it themselves."""
        members = self.members(bound)
        present = [(n, m) for n, m in members if not self.is_absent(m)]
        for i, (member_name, member) in enumerate(present):
            asked = dim if len(members) == 1 else None
            self.before_norm = _is_norm_without_bias(present[i + 1][1] if i + 1 < len(present) else None)
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
        try:
            inner = called(definition, home, params, place, frame)
            return self.add(Bound(definition.body, inner, definition.at), x, dim, name)
        except OpError as e:
            given = ", ".join(f"{k} {Bound(v, frame)}" for k, v in list(params.items())[:4])
            raise e.called_from(at, f"'{op}'{f' with {given}' if given else ''}"[:120]) from None

    def _made(self, op: str, params: Mapping[str, Any], frame: Frame, at: Path, before_norm: bool) -> AnyOp:
        if op not in registry.BLOCKS:
            known, defined = registry.blocks(*INSIDE), frame.definitions.table
            hint = did_you_mean(op, [n for n in known if n not in defined], what="known here", first=defined)
            raise OpError(f"there is no op named '{op}'", hint=hint, code="unknown-op")
        cls = registry.get(op, *INSIDE)
        ops = cls.written() if issubclass(cls, Composite) else frozenset()
        given: dict[str, Any] = {
            key: Bound(value, frame, (*at, key)) if key in ops else plain(frame.value(value))
            for key, value in params.items()
        }
        if before_norm and "bias" in cls.model_fields and "bias" not in given and not issubclass(cls, Norm):
            given["bias"] = False
        for key, place_name in getattr(cls, "of_place", {}).items():
            if key not in given and (found := dict(frame.names).get(place_name)) is not None:
                given[key] = found
        try:
            made = registry.make(op, given, *INSIDE)
        except registry.ParamsError as errors:
            where, error = errors.errors[0]
            raise error.placed_at((*at, *where)) from None
        return (made.as_part() or made) if isinstance(made, Mixer) else made

    def inner(self, bound: Bound, x: int, dim: int | None, name: tuple[str, ...], frame: Frame) -> int:
        """The op of a wrapper: a list's members, or the one op under its name, read in a scope of the wrapper's."""
        value = Seq((bound.value,), bound.at) if isinstance(bound.value, Map) else bound.value
        return self.chain(Bound(value, frame, bound.place), x, dim, name)

    def made(self, bound: Bound, *kinds: Kind) -> AnyOp:
        """An op that is a single block, not placed yet."""
        value = plain(bound)
        try:
            if isinstance(value, str):
                value = {"op": value}
            if not isinstance(value, dict) or not isinstance(value.get("op"), str):
                raise OpError("here stands one op: a name or {op: name, ...}", code="value")
            return registry.make(value["op"], {k: v for k, v in value.items() if k != "op"}, *kinds)
        except OpError as e:
            raise e.placed_at(bound.place) from None

    def members(self, bound: Bound) -> list[tuple[str, Bound]]:
        """The members of a list or a mapping of ops, see `named`."""
        found = list(named(bound))
        self._count(len(found))
        return found

    def is_absent(self, bound: Bound) -> bool:
        """Whether `when` leaves an op out."""
        value, frame = bound.value, bound.frame
        if isinstance(value, Map) and "when" in value:
            return not _truth(plain(frame.value(value.get("when"))))
        if isinstance(value, Map | Seq | str):
            return False
        found = frame.value(value)
        return self.is_absent(found) if isinstance(found, Bound) else found in _ABSENT

    # --- steps

    def step(self, op: AnyOp, inputs: tuple[int, ...], dim: int | None, name: tuple[str, ...], at: Path = ()) -> int:
        """A plain part, at the end of the program. `inputs`: one value, or of a join its maps."""
        if len(self.steps) >= MAX_STEPS:
            raise OpError(f"a block has at most {MAX_STEPS} parts", hint="fewer repetitions", code="limit")
        placed = at_place(op, tuple(self.shapes[i] for i in inputs), dim)
        shape = facts(placed).out_shape
        tiles = max(self.tiles[i] for i in inputs)
        own = name if self.is_shared else self._unique(name)
        cut = self.shifted_by if getattr(op, "masked", False) else None
        return self.append(Step(placed, inputs, shape, tiles, tiles, self.is_shared, cut, own, at))

    @contextmanager
    def sharing(self, is_shared: bool) -> Iterator[None]:
        """Inside, steps run the modules of earlier steps of their names."""
        before, self.is_shared = self.is_shared, self.is_shared or is_shared
        yield
        self.is_shared = before

    @contextmanager
    def shifted(self, cut: int | None) -> Iterator[None]:
        """Inside, what can is told of the tiles that the step `cut` made of a rolled map."""
        before, self.shifted_by = self.shifted_by, cut
        yield
        self.shifted_by = before

    def append(self, step: Step) -> int:
        self.steps.append(step)
        self.shapes.append(step.shape)
        self.tiles.append(step.tiles)
        return len(self.steps)

    def _unique(self, name: tuple[str, ...]) -> tuple[str, ...]:
        """A name that no step has: this one, or it with the next number."""
        wanted, number = name, self.names.get(name, 1)
        while name in self.names:
            number += 1
            name = (*wanted[:-1], f"{wanted[-1]}_{number}")
        self.names[wanted] = number
        self.names.setdefault(name, 1)
        return name

    def finish(self, result: int) -> None:
        """Close the program: `result` is what it gives."""
        assert result == len(self.steps), "what is read last is made last"


_OF_LAYER = ("layer", "depth", "stage", "classes", "drop_path", "out")


def at_place(op: AnyOp, shapes: tuple[Shape, ...], dim: int | None) -> Placed[*tuple[Any, ...]]:
    """An op on these maps. Raises: OpError for a kind of op that stands nowhere inside a block."""
    shape = shapes[0]
    if isinstance(op, Join):
        return Placed(op, (shapes, dim))
    if isinstance(op, Part):
        return Placed(op, (shape, dim))
    if isinstance(op, MapOp):
        return Placed(op, (shape,))
    if isinstance(op, Reducing):
        return Placed(op, (shape, dim if dim is not None else shape.dim))
    if isinstance(op, Aggregator):
        raise OpError(f"'{op.op}' joins maps", hint="as in {op: parallel, join: " + op.op + ", of: [...]}", param="op")
    raise OpError(f"a {op.kind} such as '{op.op}' does not stand inside a block", param="op", code="wrong-kind")


def named(bound: Bound) -> Iterator[tuple[str, Bound]]:
    """The members of a list or a mapping of ops, each with its name: its key, or what its op is called, numbered."""
    value, frame = bound.value, bound.frame
    if isinstance(value, Map):
        for key, member in value.items:
            yield key, Bound(member, frame, (*value.at, key))
        return
    if not isinstance(value, Seq):
        yield _called(value, frame), bound
        return
    counts: dict[str, int] = {}
    for i, member in enumerate(value.items):
        name = _called(member, frame)
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}_{counts[name]}", Bound(member, frame, (*value.at, i))


def called_by(bound: Bound) -> str:
    """What an op is called: the name of its op, `chain` for a list."""
    return _called(bound.value, bound.frame)


def _called(member: Any, frame: Frame) -> str:
    if isinstance(member, Map):
        return _called(member.get("op"), frame) if "op" in member else "op"
    if isinstance(member, Seq):
        return "chain"
    if isinstance(member, str):
        return member
    found = frame.value(member)
    if isinstance(found, Bound):
        return _called(found.value, found.frame)
    return found if isinstance(found, str) else "none"


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise OpError(f"when is true or false, not {value!r}", param="when", code="value")
    return value


def _width(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65_536:
        hint = "// leaves out the rest" if isinstance(value, float) else "as in dim: $(2 * in)"
        raise OpError(f"a width is a whole number from 1 to 65536, not {value!r}", hint=hint, param="dim", code="value")
    return value


def _is_norm_without_bias(member: Bound | None) -> bool:
    """Whether an op is a norm, by its name, before which a convolution needs no bias."""
    if member is None:
        return False
    value = member.frame.value(member.value.get("op") if isinstance(member.value, Map) else member.value)
    cls = registry.BLOCKS.get(value) if isinstance(value, str) else None
    return cls is not None and issubclass(cls, Norm) and not cls.bias_before
