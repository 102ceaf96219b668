"""What the holes of a space's tree must be for a part of it to say the same as a part of a resolved spec.

Every function gives the bindings (hole name -> answer) that extend given ones; none where there is no way.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from blockforge.blocks import registry
from blockforge.blocks.compose.expand import Composite
from blockforge.errors import OpError
from blockforge.spec import Hole, patterns
from blockforge.spec.expressions.tree import ExpressionError
from blockforge.spec.glossary import REQUIRED
from blockforge.spec.model import BranchKeys, BranchSpec, ScaleSpec
from blockforge.spec.plan import Branch, PlannedOp
from blockforge.spec.values import Expr, Ref, names_in, same

Bindings = Mapping[str, Any]
Lets = tuple[Mapping[Any, Any], ...]
"""Names that are within reach, the nearest first; under `(name,)` the definition that a spec calls so."""
Part = Callable[[Bindings], Iterator[Bindings]]

_MAX_FILLS = 20_000
_BRANCH_KEYS = frozenset(BranchSpec.model_fields) - {"op"}
_OTHER_KEYS = {n: field.default for n, field in BranchKeys.model_fields.items() if n not in ("scale", "post_act")}
"""Keys of a branch that `defaults` does not give and that name no block, and what they are where nothing says."""


def options(value: Any, lets: Lets, known: Bindings) -> Iterator[tuple[Any, Bindings]]:
    """What a value may stand for: itself, what its name stands for, or each choice of its hole. A range stays."""
    if isinstance(value, Ref):
        given = next((let[value.name] for let in lets if value.name in let), None)
        if given is not None:
            yield from options(given, lets, known)
    elif isinstance(value, Expr):
        yield from itertools.islice(_computed(value, lets, known, {}), _MAX_FILLS)
    elif isinstance(value, Hole) and value.kind == "choice":
        for label, option in zip(value.labels, value.options, strict=True):
            if value.name not in known or same(known[value.name], label):
                yield from options(option, lets, {**known, value.name: label})
    else:
        yield value, known


def _computed(expr: Expr, lets: Lets, known: Bindings, values: dict[str, Any]) -> Iterator[tuple[Any, Bindings]]:
    """What an expression gives for all values of the names that it looks up; `values`: those that are chosen."""
    try:
        yield expr.evaluate(values.__getitem__), known
    except ExpressionError:
        return
    except KeyError as missing:
        name = str(missing.args[0])
        for value, bindings in _fills(Ref(name), lets, known):
            yield from _computed(expr, lets, bindings, {**values, name: value})


def within_stage(own: Mapping[str, Any], index: int, lets: Lets) -> Lets:
    """Names within reach in a stage: its own, those around it, and the place's."""
    depth = {"depth": own["depth"]} if "depth" in own else {}
    return (own.get("let", {}), *lets, {"stage": index, **depth})


def layer_lists(value: Any, lets: Lets, known: Bindings) -> Iterator[tuple[patterns.Pattern, list[Any], Bindings]]:
    """What `layers` may say: a pattern, and of a list its items, in which an op keeps the holes in it."""
    for option, bindings in options(value, lets, known):
        if not isinstance(option, list):
            yield option or (), [], bindings
            continue
        ways: list[tuple[list[Any], Bindings]] = [([], bindings)]
        for item in option:
            ways = [([*before, one], bound) for before, b in ways for one, bound in options(item, lets, b)]
        yield from ((patterns.of_list(items), items, bound) for items, bound in ways)


def match(value: Any, target: Any, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A value of the space against plain data; a mapping with an `op` is a block."""
    if isinstance(target, Expr):
        yield from _late(value, target, lets, known)
        return
    for option, bindings in options(value, lets, known):
        if isinstance(option, Hole):
            is_whole = option.kind == "int" and isinstance(target, float) and target.is_integer()
            wanted = int(target) if is_whole else target  # a ratio of 4.0 may be written 4
            if wanted in option and bindings.get(option.name, wanted) == wanted:
                yield {**bindings, option.name: wanted}
        elif isinstance(target, dict) and "op" in target:
            yield from _op(option, target, lets, bindings, frozenset())
        elif isinstance(option, dict) and isinstance(target, str) and target in registry.blocks("act"):
            # an activation that is a name alone, written with its parameters
            yield from _block(option, {"op": target, **_defaults(target)}, lets, bindings, frozenset())
        elif isinstance(option, dict) and isinstance(target, dict):
            if option.keys() == target.keys():
                yield from in_turn([functools.partial(match, option[k], target[k], lets) for k in option], bindings)
        elif isinstance(option, list) and isinstance(target, list):
            if len(option) == len(target):
                pairs = zip(option, target, strict=True)
                yield from in_turn([functools.partial(match, a, b, lets) for a, b in pairs], bindings)
        elif _same(option, target):
            yield bindings


def _value_or_name(values: Mapping[str, Any], name: str) -> Any:
    return values[name] if name in values else Expr.of_name(name)


def exactly(value: Any, target: Any, known: Bindings) -> Iterator[Bindings]:
    """A tree as it is written, in which holes alone are open: no name is looked up, no default known."""
    if isinstance(value, Hole):
        for label, option in zip(value.labels, value.options, strict=True):
            if value.name not in known or same(known[value.name], label):
                yield from exactly(option, target, {**known, value.name: label})
        if value.kind != "choice" and target in value and known.get(value.name, target) == target:
            yield {**known, value.name: target}
    elif isinstance(value, dict) and isinstance(target, dict):
        if value.keys() == target.keys():
            yield from in_turn([functools.partial(exactly, value[k], target[k]) for k in value], known)
    elif isinstance(value, list) and isinstance(target, list):
        if len(value) == len(target):
            yield from in_turn([functools.partial(exactly, a, b) for a, b in zip(value, target, strict=True)], known)
    elif _same(value, target):
        yield known


def _late(value: Any, target: Expr, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A value against one that is computed from the map. If no values of the names of `let` make them the same text,
    they may have any: the network that they make will tell."""
    named = [name for name in sorted(names_in(value)) if any(name in let for let in lets)]
    if isinstance(value, Hole):
        for label, option in zip(value.labels, value.options, strict=True):
            if value.name not in known or same(known[value.name], label):
                yield from _late(option, target, lets, {**known, value.name: label})
        return
    if isinstance(value, Ref):
        given = next((let[value.name] for let in lets if value.name in let), Expr.of_name(value.name))
        yield from _late(given, target, lets, known)
        return
    if not isinstance(value, Expr):
        return
    folds: list[tuple[Any, Bindings]] = []
    for chosen, bindings in itertools.islice(_fill_all([Ref(name) for name in named], lets, known), _MAX_FILLS):
        values = dict(zip(named, chosen, strict=True))
        with contextlib.suppress(ExpressionError):
            folds.append((value.fold(functools.partial(_value_or_name, values)), bindings))
    equal = [bindings for folded, bindings in folds if folded == target]
    yield from equal or (bindings for _, bindings in folds)


def _op(
    option: Any, target: dict[str, Any], lets: Lets, known: Bindings, skipped: frozenset[str]
) -> Iterator[Bindings]:
    """A block by its parameters; ops of ops as they are written, calls of definitions by what is not their default."""
    if _is_block(target["op"]):
        yield from _block(option, target, lets, known, skipped)
        return
    given = {k: v for k, v in option.items() if k not in skipped} if isinstance(option, dict) else {"op": option}
    called = next((let[op] for let in lets if (op := (str(target["op"]),)) in let), None)
    if called is not None:
        name, params = called
        missing = given.keys() ^ target.keys()
        given, target = (_with_defaults(call, missing, params) for call in (given, {**target, "op": name}))
    if given.keys() == target.keys():
        yield from in_turn([functools.partial(match, given[k], target[k], lets) for k in given], known)


def _with_defaults(call: dict[str, Any], wanted: Collection[str], params: Mapping[str, Any]) -> dict[str, Any]:
    """A call with what these parameters of its definition are where it does not give them; those that must be given
    are still missing."""
    whole = dict(call)
    for name, default in params.items():
        if name in wanted and name not in call and default != REQUIRED:
            whole[name] = whole.get(default.name, params.get(default.name)) if isinstance(default, Ref) else default
    return whole


def _is_block(op: Any) -> bool:
    return isinstance(op, str) and op in registry.BLOCKS and not issubclass(registry.BLOCKS[op], Composite)


def block(value: Any, target: PlannedOp | None, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A block of the space, or `none`, against a resolved one."""
    yield from match(value, written_out(target) if target is not None else None, lets, known)


def branch(value: Any, target: Branch, defaults: Mapping[str, Any], lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A branch of a layer: its block, norm, scale and the rest."""
    keys, written = target.keys, written_out(target.op)
    for tree, bindings in options(value, lets, known):
        given = {"op": tree} if isinstance(tree, str | list) else tree
        if not isinstance(given, dict):
            continue
        parts: list[Part] = [
            functools.partial(_op, given, written, lets, skipped=_BRANCH_KEYS - written.keys()),
            functools.partial(block, given.get("norm", defaults.get("norm", "none")), target.norm, lets),
            functools.partial(block, given.get("post_act", "none"), target.post_act, lets),
            functools.partial(match, given.get("scale", defaults.get("scale", "none")), _scale(keys.scale), lets),
            *(functools.partial(match, given.get(k, v), getattr(keys, k), lets) for k, v in _OTHER_KEYS.items()),
        ]
        yield from in_turn(parts, bindings)


def fills(value: Any, lets: Lets, known: Bindings) -> Iterator[tuple[Any, Bindings]]:
    """Every plain value that `value` may become. Raises: OverflowError if they are too many to look through."""
    count = 0
    for bindings in _fills(value, lets, known):
        if (count := count + 1) > _MAX_FILLS:
            raise OverflowError
        yield bindings


def in_turn(parts: Sequence[Part], known: Bindings) -> Iterator[Bindings]:
    """Bindings under which all parts match."""
    if not parts:
        yield known
        return
    for bindings in parts[0](known):
        yield from in_turn(parts[1:], bindings)


def written_out(planned: PlannedOp) -> dict[str, Any]:
    """A block with all its parameters; ops of ops as they are written."""
    if not _is_block(planned.spec.op):
        return {"op": planned.spec.op, **planned.spec.params}
    return {"op": planned.spec.op, **registry.make(planned.spec.op, planned.spec.params).parameters_dict()}


def _block(
    tree: Any, target: dict[str, Any], lets: Lets, known: Bindings, skipped: frozenset[str]
) -> Iterator[Bindings]:
    """The parameters that are written match, the others have their defaults."""
    given = {"op": tree} if isinstance(tree, str) else tree
    if not isinstance(given, dict) or "op" not in given:
        return
    written = {k: v for k, v in given.items() if k not in skipped}
    if not written.keys() <= target.keys():
        return
    defaults = _defaults(target["op"])
    if any(not _same(defaults[k], v) for k, v in target.items() if k not in written and k != "op"):
        return
    yield from in_turn([functools.partial(match, v, target[k], lets) for k, v in written.items()], known)


def _fills(value: Any, lets: Lets, known: Bindings) -> Iterator[tuple[Any, Bindings]]:
    for option, bindings in options(value, lets, known):
        if isinstance(option, Hole):
            for number in (
                range(int(option.low), int(option.high) + 1, option.step) if option.kind == "int" else [option.low]
            ):
                if bindings.get(option.name, number) == number:
                    yield number, {**bindings, option.name: number}
        elif isinstance(option, dict):
            for values, bound in _fill_all(list(option.values()), lets, bindings):
                yield dict(zip(option, values, strict=True)), bound
        elif isinstance(option, list):
            yield from _fill_all(option, lets, bindings)
        else:
            yield option, bindings


def _fill_all(values: list[Any], lets: Lets, known: Bindings) -> Iterator[tuple[list[Any], Bindings]]:
    if not values:
        yield [], known
        return
    for first, bindings in _fills(values[0], lets, known):
        for rest, bound in _fill_all(values[1:], lets, bindings):
            yield [first, *rest], bound


@functools.lru_cache(512)
def _defaults(op: str) -> dict[str, Any]:
    """What the parameters of a block are where nothing says; those that must be said are missing."""
    fields = registry.get(op).model_fields
    required = {name: None for name, field in fields.items() if field.is_required()}
    try:
        return registry.make(op, {}).parameters_dict()
    except OpError:
        return required | {n: f.get_default() for n, f in fields.items() if not f.is_required()}


def _scale(scale: ScaleSpec | None) -> Any:
    """As a spec says it."""
    if scale is None or scale == ScaleSpec():
        return None
    said = {k: v for k, v in (("branch", scale.branch), ("skip", scale.skip)) if v is not None}
    return said["branch"] if said.keys() == {"branch"} else said


def _same(a: Any, b: Any) -> bool:
    """Equal as values of a spec: `none` leaves out, and a whole number may be written as either kind."""
    a, b = (None if isinstance(v, str) and v == "none" else v for v in (a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
