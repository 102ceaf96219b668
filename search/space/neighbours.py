"""What may stand beside a value of a spec: other numbers and words of a parameter, other blocks of an op's kind.

They follow from the types and ranges that blocks, rules and definitions declare. Whether a neighbour fits where it
would stand is not known here: `around` asks the compiler.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from blockforge.blocks import registry
from blockforge.blocks.compose.expand import Composite
from blockforge.compiler.graph.connect import RULES, make_rule
from blockforge.errors import OpError, Path

_FACTORS = (0.5, 0.75, 1.25, 1.5)
"""Of a float: a ratio."""
_EACH_SIDE = 2
_NO_STRUCTURE = frozenset({"scale", "init"})
"""Keys of an op that shape no computation."""
_KEPT = ("norm", "act", "head")
"""Kinds whose ops are left as they are."""
_EXCHANGED = ("mixer", "ffn", "stem", "downsample", "aggregator")
"""Kinds of which another block may take an op's place: their places are the same for all of a kind."""


@dataclass(frozen=True)
class Open:
    """A value that may change.

    Attributes:
        path: where it stands, or would stand.
        options: what it may be, itself first.
        labels: names of the options, where these are blocks.
        must_count: whether a neighbour must change the multiply-adds: that of a ratio or a word, which may as well be
            an `eps` or a way to begin.
    """

    path: Path
    options: tuple[Any, ...]
    labels: tuple[str, ...] = ()
    must_count: bool = False
    is_written: bool = True


def neighbours_of(tree: Any, path: Path, define: Mapping[str, Any], inside: bool = False) -> Iterator[Open]:
    """All that may change in an op, or in a list of them, as it is written: its block first, then its parameters.

    Args:
        define: the definitions that it may call; where one is called as a block is, the name means the definition.
        inside: it is a part of a composed op; parts keep their blocks.
    """
    if isinstance(tree, list):
        for i, item in enumerate(tree):
            yield from neighbours_of(item, (*path, i), define, inside)
        return
    op = tree.get("op") if isinstance(tree, dict) else tree if isinstance(tree, str) else None
    if isinstance(op, str) and op in registry.BLOCKS and op not in define:
        if registry.get(op).kind in _KEPT:
            return
        if not inside:
            yield from _exchanged(op, tree, path, define)
    if not isinstance(tree, dict):
        return
    yield from _parameters(tree, path, define)
    for key, value in tree.items():
        if key in _NO_STRUCTURE or not isinstance(value, dict | list):
            continue
        if isinstance(value, dict) and "op" not in value:
            for name, part in value.items():
                yield from neighbours_of(part, (*path, key, name), define, inside=True)
        else:
            yield from neighbours_of(value, (*path, key), define, inside=True)


def neighbours_of_rule(tree: Mapping[str, Any], path: Path) -> Iterator[Open]:
    """The parameters of a rule of `connect`, those at their defaults too."""
    given = {k: v for k, v in tree.items() if k not in ("rule", "aggregate")}
    for name, field in RULES[tree["rule"]].model_fields.items():
        value = given.get(name, None if field.is_required() else field.get_default())
        counts = (1, 2, 3, 4) if isinstance(value, str) else numbers(value)
        fitting = [n for n in counts if _is_rule(tree["rule"], {**given, name: n})]
        if fitting:
            yield Open((*path, name), (value, *fitting), is_written=name in given)


def numbers(value: Any) -> list[Any]:
    """Neighbours of a number: of a whole one its half, its double and the nearest, of another some multiples."""
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        below = [n for n in dict.fromkeys((value // 2, value - 2, value - 1)) if 0 < n < value]
        above = [n for n in dict.fromkeys((2 * value, value + 2, value + 1)) if n > value]
        return [*below, *above]
    return [_whole(value * factor) for factor in _FACTORS] if isinstance(value, float) and value > 0 else []


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _is_rule(name: str, params: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OpError, ValidationError):
        make_rule(name, params)
        return True
    return False


def _exchanged(op: str, tree: Any, path: Path, define: Mapping[str, Any]) -> Iterator[Open]:
    """The op itself, or another of its kind with the parameters that both declare."""
    kind = registry.get(op).kind
    if kind not in _EXCHANGED:
        return
    given = dict(tree) if isinstance(tree, dict) else {"op": op}
    params = {k: v for k, v in given.items() if k != "op" and k in registry.get(op).model_fields}
    around = {k: v for k, v in given.items() if k != "op" and k not in params}
    options: list[Any] = [tree]
    labels = [op]
    for name, cls in registry.blocks(kind).items():
        if name == op or name in define:
            continue
        shared = {k: v for k, v in params.items() if k in cls.model_fields}
        for said in (shared, {}):
            if _is_block(name, said):
                options.append({"op": name, **said, **around})
                labels.append(name)
                break
    if len(options) > 1:
        yield Open(path, tuple(options), tuple(labels))


def _is_block(op: str, params: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OpError):
        registry.make(op, dict(params))
        return True
    return False


def _parameters(tree: Mapping[str, Any], path: Path, define: Mapping[str, Any]) -> Iterator[Open]:
    op = tree.get("op")
    if not isinstance(op, str):
        return
    if op not in define and op in registry.BLOCKS and not issubclass(registry.get(op), Composite):
        yield from _of_block(op, tree, path)
        return
    defaults = define.get(op, {}).get("params", {}) if isinstance(define.get(op), dict) else {}
    for name, value in {**defaults, **tree}.items():
        if name != "op" and (beside := numbers(value)):
            is_ratio = isinstance(value, float)
            yield Open((*path, name), (value, *beside), must_count=is_ratio, is_written=name in tree)


def _of_block(op: str, tree: Mapping[str, Any], path: Path) -> Iterator[Open]:
    cls = registry.get(op)
    given = {k: v for k, v in tree.items() if k in cls.model_fields}
    if not _is_block(op, given):
        return  # it has expressions in it: what they give is known at its place alone
    whole = registry.make(op, given)
    for name, field in cls.model_fields.items():
        value = getattr(whole, name)
        if name in _NO_STRUCTURE:
            continue
        if get_origin(field.annotation) is Literal:
            beside: list[Any] = [word for word in get_args(field.annotation) if word != value]
        else:
            beside = [not value] if isinstance(value, bool) else numbers(value)
        fitting = [other for other in beside if _is_block(op, {**given, name: other})]
        if isinstance(value, int) and not isinstance(value, bool):
            fitting = [n for side in (True, False) for n in [m for m in fitting if (m < value) == side][:_EACH_SIDE]]
        if fitting:
            own = given.get(name, value)
            counts = isinstance(value, bool | float | str)
            yield Open((*path, name), (own, *fitting), must_count=counts, is_written=name in given)
