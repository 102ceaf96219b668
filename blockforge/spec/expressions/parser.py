"""Text -> the tree of an expression, by Python's own grammar and without any of its meaning.

Every value in the text (a name, a number, what stands in quotes) is replaced by quoted underscores of its length. What
is left for Python's parser are signs, brackets and `and`, `or`, `not`: it says what binds to what, at the places of the
text. So no word means what it means in Python, no number or quote is read by it, and nothing is compiled or run.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from blockforge.errors import parse_path
from blockforge.spec.expressions.tree import EXAMPLE, ExpressionError, Node

MAX_EXPRESSION, MAX_NESTING = 500, 30

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?)(?![\w.])"
    r"|(?P<call>(?:min|max|abs)\s*\()"
    r"|(?P<name>\$?[A-Za-z_]\w*(?:\.\w+|\[\d{1,6}\])*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|<=|>=|//|[<>+\-*/%(),]))",
    re.ASCII,
)
_CONSTANTS = {"true": True, "false": False, "none": "none"}
_WORDS = ("and", "or", "not")
_BEFORE_NOT = ("", "(", "and", "or", "not")
_INSTEAD = {"=": "== compares", "&": "write and", "|": "write or", "!": "write not"}
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
        raise ExpressionError(f"a relation has at most {MAX_EXPRESSION} characters")
    tokens = _tokens(text)
    _check_order(text, tokens)
    python = [" "] * len(text)
    for token in tokens:
        python[token.start : token.end] = _as_python(token)
    tree = ast.parse(f"({''.join(python)})", mode="eval")
    return _Reader(tokens).node(tree.body)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            column = end - len(text[position:end].lstrip())
            hint = _INSTEAD.get(text[column], EXAMPLE)
            raise ExpressionError(f"'{text[column]}' has no place here", column, hint=hint)
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
            if token.text == ")" and opened:
                opened.pop()
            elif _joins(token, opened):
                after_value = False
            else:
                closed = not opened or token.text == ","
                raise _misplaced(token, "has no place here") if closed else _never_closed(opened[-1])
        elif token.text.endswith("("):
            opened.append(token)
            if len(opened) >= MAX_NESTING:
                raise ExpressionError(f"parentheses nest at most {MAX_NESTING} deep", token.end)
        elif token.kind in ("number", "name", "text"):
            after_value = True
        elif token.text != "-" and not (token.text == "not" and before in _BEFORE_NOT):
            raise _misplaced(token, "stands where a value should")
        before = token.text
    if not after_value:
        raise ExpressionError("a value is missing at the end", max(0, len(text.rstrip()) - 1))
    if opened:
        raise _never_closed(opened[-1])


def _joins(token: _Token, opened: Sequence[_Token]) -> bool:
    """Whether a token may stand between two values."""
    if token.text == ",":
        return bool(opened) and opened[-1].kind == "call"
    return token.text in ("and", "or") or (token.kind == "sign" and token.text not in "()")


def _misplaced(token: _Token, why: str) -> ExpressionError:
    return ExpressionError(f"'{token.text}' {why}", token.start, len(token.text))


def _never_closed(bracket: _Token) -> ExpressionError:
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
        if (len(arguments) == 1) != (name == "abs"):
            takes = "one value" if name == "abs" else "two values or more"
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
