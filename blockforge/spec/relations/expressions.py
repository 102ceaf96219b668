"""The small language of `require`: comparisons, arithmetic and names, read by a parser of our own.

    stages.1.dim >= stages.0.dim            a name is a path of the spec, or what `let` gives
    heads * 16 <= stages[3].dim             + - * / // %
    M == 'all' or S <= M                    == != < <= > >=, chained as in 1 < S <= 4; and, or, not
    not (stages.2.connect == none)          text in quotes; true, false and none stand for themselves

`and` and `or` look no further than they need. Nothing is ever handed to Python to run.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Path

MAX_EXPRESSION, MAX_NESTING = 500, 30

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?)(?![\w.])"
    r"|(?P<name>\$?[A-Za-z_]\w*(?:\.\w+|\[\d{1,6}\])*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|<=|>=|//|[<>+\-*/%()]))",
    re.ASCII,
)
_EXAMPLE = "as in stages.1.dim >= stages.0.dim, or: M == 'all' or S <= M"
_CONSTANTS = {"true": True, "false": False, "none": "none"}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod,
}  # fmt: skip
_LEVELS = (("+", "-"), ("*", "/", "//", "%"))
"""Loosely binding signs first."""

LookUp = Callable[[Path], Any]
"""The value at a path. Raises: AbsentError where a candidate has none."""


class ExpressionError(ValueError):
    """An expression that cannot be read or computed; `column` (from 0) and `length` point into it, `index` tells
    which of several expressions it is."""

    index = 0

    def __init__(self, message: str, column: int = 0, length: int = 1, hint: str = _EXAMPLE) -> None:
        super().__init__(message)
        self.column, self.length, self.hint = column, length, hint


class AbsentError(Exception):
    """A value that a candidate does not have, such as the stride of connections that it has not."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression: `kind` is a sign, a word, `constant` or `name`."""

    kind: str
    column: int
    length: int
    parts: tuple[Node, ...] = ()
    value: Any = None
    """Of a constant; of a name its path; of a comparison its signs."""


def evaluate(node: Node, look_up: LookUp) -> Any:
    """The value of an expression. Raises: ExpressionError, AbsentError."""
    parts = node.parts
    if node.kind == "constant":
        return node.value
    if node.kind == "name":
        return look_up(node.value)
    if node.kind in ("and", "or"):
        return _first(parts, look_up, stop_at=node.kind == "or")
    if node.kind == "not":
        return not evaluate(parts[0], look_up)
    if node.kind == "negative":
        return -_number(parts[0], look_up, "-")
    if node.kind == "compare":
        return all(_holds(sign, parts[i], parts[i + 1], look_up) for i, sign in enumerate(node.value))
    left, right = (_number(part, look_up, node.kind) for part in parts)
    try:
        return _ARITHMETIC[node.kind](left, right)
    except ArithmeticError:
        raise ExpressionError(f"{left} {node.kind} {right} has no value", node.column, node.length) from None


def excess(node: Node, look_up: LookUp) -> float:
    """By how much an expression fails, 0 where it holds: for `a <= b` it is (a - b) / max(|a|, |b|, 1).

    Of `and` the largest, of `or` the smallest of the parts; what has no measure fails by 1.
    """
    if evaluate(node, look_up):
        return 0.0
    if node.kind == "and":
        return max(excess(part, look_up) for part in node.parts)
    if node.kind == "or":
        return min(excess(part, look_up) for part in node.parts)
    if node.kind != "compare":
        return 1.0
    values = [evaluate(part, look_up) for part in node.parts]
    return max(_gap(sign, values[i], values[i + 1]) for i, sign in enumerate(node.value))


def names(node: Node) -> Iterator[Node]:
    """The names in an expression, in the order they are written."""
    if node.kind == "name":
        yield node
    for part in node.parts:
        yield from names(part)


def failing(node: Node, look_up: LookUp) -> Node:
    """The part of a failing expression to show: the first part of an `and` that fails."""
    if node.kind == "and":
        return failing(next(p for p in node.parts if not evaluate(p, look_up)), look_up)
    return node


def _first(parts: tuple[Node, ...], look_up: LookUp, stop_at: bool) -> bool:
    return next((stop_at for part in parts if bool(evaluate(part, look_up)) is stop_at), not stop_at)


def _holds(sign: str, left: Node, right: Node, look_up: LookUp) -> bool:
    if sign in ("==", "!="):
        return bool(_COMPARISONS[sign](evaluate(left, look_up), evaluate(right, look_up)))
    return bool(_COMPARISONS[sign](_number(left, look_up, sign), _number(right, look_up, sign)))


def _number(node: Node, look_up: LookUp, sign: str) -> Any:
    value = evaluate(node, look_up)
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
        hint = "test for it first, as in: M == 'all' or S <= M"
        raise ExpressionError(f"{shown} is no number, which {sign} needs", node.column, node.length, hint)
    return value


def _gap(sign: str, a: Any, b: Any) -> float:
    if _COMPARISONS[sign](a, b):
        return 0.0
    if sign == "!=" or not all(isinstance(v, int | float) for v in (a, b)):
        return 1.0
    gap = abs(a - b) / max(abs(a), abs(b), 1)
    return max(gap, 1e-6) if math.isfinite(gap) else 1.0


@functools.lru_cache(1024)
def parse(text: str) -> Node:
    """An expression read. Raises: ExpressionError that points at what has no place in it."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"a relation has at most {MAX_EXPRESSION} characters")
    return _Parser(text).whole()


class _Parser:
    """Recursive descent: or, and, not, comparison, sum, product, sign, atom."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.nesting = text, 0, 0
        self.tokens: list[re.Match[str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                column = end - len(text[position:end].lstrip())
                known = {"=": "== compares", "&": "write and", "|": "write or", "!": "write not"}.get(text[column])
                raise ExpressionError(f"'{text[column]}' has no place here", column, hint=known or _EXAMPLE)
            self.tokens.append(match)
            position = match.end()

    def whole(self) -> Node:
        found = self.any_of()
        if self.at < len(self.tokens):
            self.refuse("has no place here")
        return found

    def any_of(self) -> Node:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise ExpressionError(f"parentheses nest at most {MAX_NESTING} deep", self.column())
        found = self.row("or", lambda: self.row("and", self.negation))
        self.nesting -= 1
        return found

    def row(self, word: str, part: Callable[[], Node]) -> Node:
        """`a and b and c`."""
        parts = [part()]
        while self.take("name", word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else self.node(word, parts)

    def negation(self) -> Node:
        start, count = self.column(), 0
        while self.take("name", "not"):
            count += 1
        found = self.comparison()
        if not count:
            return found
        odd = Node("not", start, found.column + found.length - start, (found,))
        return odd if count % 2 else Node("not", start, odd.length, (odd,))

    def comparison(self) -> Node:
        parts, signs = [self.binary(0)], []
        while sign := self.take("sign", *_COMPARISONS):
            signs.append(sign)
            parts.append(self.binary(0))
        return parts[0] if not signs else self.node("compare", parts, tuple(signs))

    def binary(self, level: int) -> Node:
        """Sums of products; equal signs join from the left."""
        if level == len(_LEVELS):
            return self.signed()
        found = self.binary(level + 1)
        while sign := self.take("sign", *_LEVELS[level]):
            found = self.node(sign, [found, self.binary(level + 1)])
        return found

    def signed(self) -> Node:
        start, count = self.column(), 0
        while self.take("sign", "-"):
            count += 1
        found = self.atom()
        return found if count % 2 == 0 else Node("negative", start, found.column + found.length - start, (found,))

    def atom(self) -> Node:
        if self.at == len(self.tokens):
            raise ExpressionError("a value is missing at the end", max(0, len(self.text.rstrip()) - 1))
        column = self.column()
        if self.take("sign", "("):
            found = self.any_of()
            if not self.take("sign", ")"):
                raise ExpressionError("'(' is never closed", column)
            return dataclasses.replace(found, column=column, length=self.tokens[self.at - 1].end() - column)
        token = self.tokens[self.at]
        kind = token.lastgroup
        written = token[kind or 0]
        if kind == "sign" or written in ("and", "or", "not"):
            self.refuse("stands where a value should")
        self.at += 1
        if kind == "number":
            value: Any = float(written) if re.search(r"[.eE]", written) else int(written)
            return Node("constant", column, len(written), value=value)
        if kind == "text" or written in _CONSTANTS:
            value = _CONSTANTS.get(written, written[1:-1])
            return Node("constant", column, len(written), value=value)
        return Node("name", column, len(written), value=_path(written))

    def node(self, kind: str, parts: list[Node], value: Any = None) -> Node:
        last = parts[-1]
        return Node(kind, parts[0].column, last.column + last.length - parts[0].column, tuple(parts), value)

    def take(self, group: str, *wanted: str) -> str | None:
        """The next token if it is one of these."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token is None or token[group] not in wanted:
            return None
        self.at += 1
        return token[group]

    def column(self) -> int:
        """Where the next token starts."""
        if self.at == len(self.tokens):
            return len(self.text)
        token = self.tokens[self.at]
        return token.start(token.lastgroup or 0)

    def refuse(self, why: str) -> None:
        token = self.tokens[self.at]
        written = token[token.lastgroup or 0]
        raise ExpressionError(f"'{written}' {why}", self.column(), len(written))


def _path(written: str) -> Path:
    """`stages[2].dim`, or `stages.2.dim` -> ("stages", 2, "dim")."""
    parts = written.removeprefix("$").replace("[", ".").replace("]", "").split(".")
    return tuple(int(p) if p.isascii() and p.isdigit() and len(p) < 9 else p for p in parts)
