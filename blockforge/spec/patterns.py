"""The small language of `layers`: which block stands in which layer of a stage.

    sam                 every layer
    sam*2 msa*6         two, then six
    (sam msa)*          repeated until the stage is full (the last round may be cut)
    mamba* msa*         equal shares, earlier ones take the remainder (a share may be empty)
    (mamba*3 msa)*      groups nest
    sam msa* sam        fixed items keep their place, starred ones share what is left

A pattern of a single name stands for that name starred. A list holds patterns and ops, in order: a name or a group
alone and an op are there once, so a single name in a list is one layer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)?"
_TOKEN = re.compile(rf"\s*(?:(?P<name>{_NAME})|(?P<star>\*\s*(?P<count>[0-9]+)?)|(?P<paren>[()]))")
MAX_PATTERN, MAX_DEPTH, MAX_NESTING = 1000, 1000, 16

Name = str | int
"""What stands in a layer: a name, or the op that is this item of a list."""
Pattern = str | tuple[Name, ...]
"""What `layers` says: a pattern, or a list of patterns and ops, where an op is its index."""


class PatternError(ValueError):
    """A pattern that cannot be read or does not fit; `column` (from 0) and `length` point into it. `item`: which one of
    a list it is; None: the whole."""

    def __init__(self, message: str, column: int = 0, length: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.column, self.length, self.hint = column, length, hint
        self.item: int | None = None


class EndlessError(PatternError):
    """A pattern that fills a depth, and none is given."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A name or a group, `times` in a row; None: as often as there is room."""

    names: tuple[Name, ...]
    times: int | None
    column: int
    length: int


@functools.lru_cache(4096)
def expand(pattern: Pattern, depth: int | None = None) -> tuple[Name, ...]:
    """What stands in each of `depth` layers; without a depth, in as many as there are.

    Raises: PatternError if the pattern is malformed or cannot give exactly `depth` layers.
    """
    items, length = _items(pattern), len(pattern) if isinstance(pattern, str) else 1
    said = f"'{pattern.strip()}'" if isinstance(pattern, str) else "the list"
    fixed = sum(len(i.names) * i.times for i in items if i.times is not None)
    starred = [i for i in items if i.times is None]
    if fixed > MAX_DEPTH:
        raise PatternError(f"a stage has at most {MAX_DEPTH} layers", length=length)
    if depth is None:
        if starred:
            raise EndlessError(f"{said} has no end, and there is no depth", length=length)
        depth = fixed
    if not starred and fixed != depth:
        raise PatternError(
            f"{said} gives {fixed} layers, the depth is {depth}",
            length=length,
            hint=f"set depth to {fixed}, or let a part fill the stage: write * after it without a number",
        )
    room = depth - fixed
    if room < 0:
        raise PatternError(
            f"{said} needs at least {fixed} layers, the depth is {depth}",
            length=length,
            hint="raise depth or shorten the pattern",
        )
    share, rest = divmod(room, max(1, len(starred)))
    layers: list[Name] = []
    for item in items:
        if item.times is not None:
            layers += item.names * item.times
            continue
        layers += _repeat(item.names, share + (rest > 0))
        rest -= 1
    return tuple(layers)


@functools.lru_cache(4096)
def names(pattern: str) -> tuple[tuple[str, int], ...]:
    """The block names in a pattern, each with its column (from 0)."""
    _parse(pattern)
    return tuple((m["name"], m.start("name")) for m in _TOKEN.finditer(pattern) if m["name"])


def of_list(items: Sequence[Any]) -> tuple[Name, ...]:
    """A list of patterns and ops as `expand` takes it."""
    return tuple(item if isinstance(item, str) else i for i, item in enumerate(items))


def _items(pattern: Pattern) -> list[_Item]:
    if isinstance(pattern, str):
        return _parse(pattern)
    items: list[_Item] = []
    for i, part in enumerate(pattern):
        if isinstance(part, int):
            items.append(_Item((part,), 1, 0, 1))
            continue
        try:
            items += _parse(part, alone=False)
        except PatternError as e:
            e.item = i
            raise
    return items


def _repeat(names: tuple[Name, ...], count: int) -> tuple[Name, ...]:
    return (names * (count // len(names) + 1))[:count]


def _parse(pattern: str, alone: bool = True) -> list[_Item]:
    """`alone`: it is all that `layers` says, and so a single name fills the stage."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"a pattern has at most {MAX_PATTERN} characters")
    tokens, position = [], 0
    text = pattern.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            column = len(text) - len(text[position:].lstrip())
            hint = "a pattern is block names, parentheses, and * with or without a number: (sam*3 msa)* msa*2"
            raise PatternError(f"'{text[column]}' has no place in a pattern", column, hint=hint)
        tokens.append(match)
        position = match.end()
    items, end = _sequence(tokens, 0, 0)
    if end < len(tokens):
        raise PatternError("')' without '('", tokens[end].start("paren"), hint="open the group: (sam msa)*")
    if not items:
        raise PatternError("the pattern is empty", length=len(pattern) or 1, hint="name a block, as in layers: sam")
    if alone and len(tokens) == 1:
        return [_Item(items[0].names, None, items[0].column, items[0].length)]
    return items


def _sequence(tokens: list[re.Match[str]], at: int, nesting: int) -> tuple[list[_Item], int]:
    """Items from token `at` up to a closing parenthesis or the end."""
    if nesting > MAX_NESTING:
        raise PatternError(f"groups nest at most {MAX_NESTING} deep", tokens[at - 1].start("paren"))
    items: list[_Item] = []
    inner: tuple[Name, ...]
    while at < len(tokens) and tokens[at]["paren"] != ")":
        token = tokens[at]
        if token["star"]:
            raise PatternError(
                "'*' needs a name or a group before it", token.start("star"), hint="as in sam*2 (sam msa)*"
            )
        if token["name"]:
            inner = (str(token["name"]),)
            column, at = token.start("name"), at + 1
        else:
            inner, column, at = _group(tokens, at, nesting)
        times: int | None = 1
        if at < len(tokens) and tokens[at]["star"]:
            times = _times(tokens[at])
            at += 1
        if len(inner) * (times or 1) > MAX_DEPTH:
            raise PatternError(f"a stage has at most {MAX_DEPTH} layers", column)
        items.append(_Item(inner, times, column, tokens[at - 1].end() - column))
    return items, at


def _group(tokens: list[re.Match[str]], at: int, nesting: int) -> tuple[tuple[Name, ...], int, int]:
    column = tokens[at].start("paren")
    inner, end = _sequence(tokens, at + 1, nesting + 1)
    if end == len(tokens):
        raise PatternError("'(' is never closed", column, hint="close the group: (sam msa)*")
    if not inner:
        raise PatternError("the group is empty", column, 2, hint="name a block in it, or leave it out")
    open_star = next((i for i in inner if i.times is None), None)
    if open_star is not None:
        raise PatternError(
            "a part of a group needs a number after '*'",
            open_star.column,
            open_star.length,
            hint="as in (sam*3 msa)*",
        )
    flat = tuple(n for i in inner for n in i.names * (i.times or 0))
    if len(flat) > MAX_DEPTH:
        raise PatternError(f"a stage has at most {MAX_DEPTH} layers", column)
    return flat, column, end + 1


def _times(star: re.Match[str]) -> int | None:
    if star["count"] is None:
        return None
    if len(star["count"]) > 4 or not 1 <= int(star["count"]) <= MAX_DEPTH:
        count = star["count"] if len(star["count"]) <= 8 else "so many"
        raise PatternError(
            f"'{count}' times; a part can stand 1 to {MAX_DEPTH} times",
            star.start("count"),
            len(star["count"]),
            hint="leave the part out, or write * alone to fill the stage",
        )
    return int(star["count"])
