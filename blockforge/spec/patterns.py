"""The small language of `layers`: which block stands in which layer of a stage.

    sam                 every layer
    sam*2 msa*6         two, then six
    (sam msa)*          repeated until the stage is full (the last round may be cut)
    mamba* msa*         equal shares, earlier ones take the remainder (a share may be empty)
    (mamba*3 msa)*      groups nest
    sam msa* sam        fixed items keep their place, starred ones share what is left

A pattern of a single name stands for that name starred.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_-]*)|(?P<star>\*\s*(?P<count>[0-9]+)?)|(?P<paren>[()]))")
MAX_PATTERN, MAX_DEPTH, MAX_NESTING = 1000, 1000, 16


class PatternError(ValueError):
    """A pattern that cannot be read or does not fit; `column` (from 0) and `length` point into it."""

    def __init__(self, message: str, column: int = 0, length: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.column, self.length, self.hint = column, length, hint


@dataclass(frozen=True, slots=True)
class _Item:
    """A name or a group, `times` in a row; None: as often as there is room."""

    names: tuple[str, ...]
    times: int | None
    column: int
    length: int


@functools.lru_cache(4096)
def expand(pattern: str, depth: int) -> tuple[str, ...]:
    """The block name of each of `depth` layers.

    Raises: PatternError if the pattern is malformed or cannot give exactly `depth` layers.
    """
    items = _parse(pattern)
    if len(items) == 1 and items[0].times is None:
        return _repeat(items[0].names, depth)
    fixed = sum(len(i.names) * i.times for i in items if i.times is not None)
    starred = [i for i in items if i.times is None]
    if not starred:
        if fixed != depth:
            raise PatternError(
                f"'{pattern.strip()}' gives {fixed} layers, the depth is {depth}",
                length=len(pattern),
                hint=f"set depth to {fixed}, or let a part fill the stage: write * after it without a number",
            )
        return tuple(n for i in items for n in i.names * (i.times or 0))
    room = depth - fixed
    if room < 0:
        raise PatternError(
            f"'{pattern.strip()}' needs at least {fixed} layers, the depth is {depth}",
            length=len(pattern),
            hint="raise depth or shorten the pattern",
        )
    share, rest = divmod(room, len(starred))
    layers: list[str] = []
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


def _repeat(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    return (names * (count // len(names) + 1))[:count]


def _parse(pattern: str) -> list[_Item]:
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
    if len(tokens) == 1:
        return [_Item(items[0].names, None, items[0].column, items[0].length)]
    return items


def _sequence(tokens: list[re.Match[str]], at: int, nesting: int) -> tuple[list[_Item], int]:
    """Items from token `at` up to a closing parenthesis or the end."""
    if nesting > MAX_NESTING:
        raise PatternError(f"groups nest at most {MAX_NESTING} deep", tokens[at - 1].start("paren"))
    items: list[_Item] = []
    inner: tuple[str, ...]
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


def _group(tokens: list[re.Match[str]], at: int, nesting: int) -> tuple[tuple[str, ...], int, int]:
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
