"""Text -> the tree of an expression, by Python's own grammar and without any of its meaning.

Every value in the text (a name, a number, what stands in quotes) is replaced by quoted underscores of its length. What
is left for Python's parser are signs, brackets and `and`, `or`, `not`, `if`, `else`: it says what binds to what, at the
places of the text. So no word means what it means in Python, no number or quote is read by it, and nothing is compiled
or run.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from blockforge.errors import format_path, parse_path
from blockforge.spec.expressions.foreign import instead
from blockforge.spec.expressions.tree import EXAMPLE, ExpressionError, Node

MAX_EXPRESSION, MAX_NESTING = 500, 30

CALLS: dict[str, tuple[int, int | None]] = {
    "min": (2, None), "max": (2, None), "abs": (1, 1), "floor": (1, 1), "ceil": (1, 1), "round": (1, 1),
    "up": (2, 2), "near": (2, 2),
}  # fmt: skip
"""The functions, and how many values each takes: at least, at most."""
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?)(?![\w.])"
    rf"|(?P<call>(?:{'|'.join(CALLS)})\s*\()"
    r"|(?P<name>\$?[A-Za-z_]\w*(?:\.\w+|\[\d{1,6}\])*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|<=|>=|//|[<>+\-*/%(),[\]]))",
    re.ASCII,
)
_CONSTANTS = {"true": True, "false": False, "none": "none"}
_WORDS = ("and", "or", "not", "if", "else")
_BEFORE_NOT = ("", "(", "[", "and", "or", "not", "if", "else")
_KINDS: dict[type[ast.AST], str] = {
    ast.And: "and", ast.Or: "or", ast.Not: "not", ast.USub: "negative",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


class _Token(NamedTuple):
    """A piece of the text. `kind`: number, call, name, text, sign or word."""

    kind: str
    text: str
    start: int
    end: int


@functools.lru_cache(1024)
def parse(text: str) -> Node:
    """An expression read. Raises: ExpressionError that points at what has no place in it."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"an expression has at most {MAX_EXPRESSION} characters")
    tokens = _tokens(text)
    _check_order(text, tokens)
    python = [" "] * len(text)
    for token in tokens:
        python[token.start : token.end] = _as_python(token)
    tree = ast.parse(f"({''.join(python)})", mode="eval")
    return _Reader(tokens).node(tree.body)


@functools.lru_cache(1024)
def parse_value(text: str) -> Node:
    """As `parse`, of what stands in `$(...)`: a name is one of `let` or of its place, never a path of the spec."""
    return _named(parse(text))


def _named(node: Node) -> Node:
    """`sizes[0]`, which `parse` takes for a path, as an item of what `sizes` stands for."""
    if node.kind != "name":
        return replace(node, parts=tuple(map(_named, node.parts)))
    name, *rest = node.value
    if not all(isinstance(part, int) for part in rest):
        text = f"'{format_path(node.value)}' is a path; names stand here, of let and of the place"
        raise ExpressionError(text, node.column, node.length)
    indexed = replace(node, value=(name,))
    for index in rest:
        indexed = replace(node, kind="index", value=None, parts=(indexed, replace(node, kind="constant", value=index)))
    return indexed


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            column = end - len(text[position:end].lstrip())
            raise _misplaced(text, column, text[column], "has no place here")
        kind = str(match.lastgroup)
        written, position = match[kind], match.end()
        tokens.append(_Token("word" if written in _WORDS else kind, written, match.start(kind), position))
    return tokens


def _check_order(text: str, tokens: Sequence[_Token]) -> None:
    """Refuse what stands where it cannot: values and signs take turns, and brackets close."""
    opened: list[_Token] = []
    before, after_value = "", False
    for token in tokens:
        if after_value:
            after_value = _check_after_value(text, token, opened)
        elif token.text.endswith("("):
            _open(token, opened)
        elif token.kind in ("number", "name", "text"):
            after_value = True
        elif token.text != "-" and not (token.text == "not" and before in _BEFORE_NOT):
            raise _misplaced(text, token.start, token.text, "stands where a value should")
        before = token.text
    if not after_value:
        raise ExpressionError("a value is missing at the end", max(0, len(text.rstrip()) - 1))
    if opened:
        raise _never_closed(opened[-1])


def _check_after_value(text: str, token: _Token, opened: list[_Token]) -> bool:
    """Whether a token behind a value ends one itself; `opened`: brackets, and `if` that still needs its `else`."""
    last = opened[-1] if opened else None
    if token.text == "[":
        _open(token, opened)
        return False
    if last and token.text == ("]" if last.text == "[" else "else" if last.text == "if" else ")"):
        opened.pop()
        return token.text != "else"
    if token.text == "if" and not (last and last.text == "if"):
        opened.append(token)
        return False
    if _joins(token, last):
        return False
    if last is None or (token.text == "," and last.text != "if"):
        raise _misplaced(text, token.start, token.text, "has no place here")
    raise _never_closed(last)


def _open(token: _Token, opened: list[_Token]) -> None:
    opened.append(token)
    if len(opened) >= MAX_NESTING:
        raise ExpressionError(f"parentheses nest at most {MAX_NESTING} deep", token.end)


def _joins(token: _Token, last: _Token | None) -> bool:
    """Whether a token may stand between two values inside the bracket that was opened last."""
    if token.text == ",":
        return last is not None and last.kind == "call"
    return token.text in ("and", "or") or (token.kind == "sign" and token.text not in "()[]")


def _misplaced(text: str, column: int, piece: str, why: str) -> ExpressionError:
    hint = instead(text, column, CALLS) or EXAMPLE
    return ExpressionError(f"'{piece}' {why}", column, len(piece), hint)


def _never_closed(bracket: _Token) -> ExpressionError:
    if bracket.text == "if":
        hint = "as in: 8 if M == 'all' else 4; put brackets around one inside another"
        return ExpressionError("'if' has no 'else'", bracket.start, 2, hint)
    return ExpressionError(f"'{bracket.text}' is never closed", bracket.start, len(bracket.text))


def _as_python(token: _Token) -> str:
    """What Python's parser sees of a token: as many characters, none of a value."""
    if token.kind in ("sign", "word"):
        return token.text
    if token.kind == "call":
        return "_" * (len(token.text) - 1) + "("
    return f'"{"_" * (len(token.text) - 2)}"' if len(token.text) > 1 else "_"


class _Reader:
    """Turns Python's tree into ours; what is not listed here is in no text that `_check_order` lets through."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self.tokens, self.texts = tokens, [token.text for token in tokens]
        self.starting = {token.start: i for i, token in enumerate(tokens)}
        self.ending = {token.end: i for i, token in enumerate(tokens)}

    def node(self, tree: ast.expr) -> Node:
        """A part of the tree. One call a level: a sum of hundreds of terms is as many levels deep."""
        match tree:
            case ast.BoolOp(op, values):
                return self.placed(tree, _KINDS[type(op)], *map(self.node, values))
            case ast.BinOp(left, op, right):
                return self.placed(tree, _KINDS[type(op)], self.node(left), self.node(right))
            case ast.Compare(left, ops, others):
                signs = tuple(_KINDS[type(op)] for op in ops)
                return self.placed(tree, "compare", self.node(left), *map(self.node, others), value=signs)
            case ast.UnaryOp():
                return self.prefixed(tree)
            case ast.Call(_, arguments):
                return self.call(tree, arguments)
            case ast.IfExp(test, value, other):
                return self.placed(tree, "if", self.node(test), self.node(value), self.node(other))
            case ast.Subscript(value, index):
                return self.placed(tree, "index", self.node(value), self.node(index))
        token = self.tokens[self.starting[tree.col_offset - 1]]
        if token.kind == "name" and token.text not in _CONSTANTS:
            return self.placed(tree, "name", value=parse_path(token.text.removeprefix("$")))
        return self.placed(tree, "constant", value=_constant(token))

    def prefixed(self, tree: ast.UnaryOp) -> Node:
        """`not a`, `-a`. Two of a kind beside each other cancel, so that no number of them nests deep."""
        kind, operand, odd = _KINDS[type(tree.op)], tree.operand, True
        while isinstance(operand, ast.UnaryOp) and type(operand.op) is type(tree.op) and not self.in_brackets(operand):
            operand, odd = operand.operand, not odd
        part = self.node(operand)
        if odd:
            return self.placed(tree, kind, part)
        return part if kind == "negative" else self.placed(tree, kind, self.placed(tree, kind, part))

    def in_brackets(self, tree: ast.expr) -> bool:
        """Whether brackets stand around an operand of a prefix."""
        return self.texts[self.starting[tree.col_offset - 1] - 1] == "("

    def call(self, tree: ast.Call, arguments: Sequence[ast.expr]) -> Node:
        """`max(a, b)`."""
        name = self.texts[self.starting[tree.col_offset - 1]].removesuffix("(").rstrip()
        node = self.placed(tree, name, *map(self.node, arguments))
        least, most = CALLS[name]
        if len(arguments) < least or (most is not None and len(arguments) > most):
            takes = ("one value" if least == 1 else "two values") + (" or more" if most is None else "")
            raise ExpressionError(f"{name} takes {takes}, not {len(arguments)}", node.column, node.length)
        return node

    def placed(self, tree: ast.expr, kind: str, *parts: Node, value: Any = None) -> Node:
        """A node where `tree` stands; brackets around it belong to it."""
        first, last = self.starting[tree.col_offset - 1], self.ending[(tree.end_col_offset or 0) - 1]
        while first and [token.text for token in (self.tokens[first - 1], *self.tokens[last + 1 : last + 2])] == [
            "(",
            ")",
        ]:
            first, last = first - 1, last + 1
        column = self.tokens[first].start
        return Node(kind, column, self.tokens[last].end - column, parts, value)


def _constant(token: _Token) -> Any:
    if token.kind == "number":
        return float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
    return _CONSTANTS.get(token.text, token.text[1:-1])
