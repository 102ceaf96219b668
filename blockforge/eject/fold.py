"""Source without the ways that a network does not take: conditions on its blocks' parameters, decided."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from torch import nn

from blockforge.eject.facts import Facts, Something

_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_PLAIN_STATEMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.For | ast.With | ast.Delete
Types = dict[str, type]
"""Variables whose class is known."""


def fold(module: ModuleType, text: str, facts: Facts) -> str:
    """The module's text with every condition decided that is the same for all instances in the network."""
    while True:
        edits = sorted(_Folder(module, text, facts).edits())
        if not edits:
            return text
        end = -1
        encoded, out = text.encode(), []
        for start, stop, new in edits:  # an outer edit first; what is inside it waits for the next round
            if start >= end:
                out.append((start, stop, new))
                end = stop
        for start, stop, new in reversed(out):
            encoded = encoded[:start] + new + encoded[stop:]
        text = encoded.decode()


class _Folder:
    def __init__(self, module: ModuleType, text: str, facts: Facts) -> None:
        self.module, self.facts = module, facts
        self.text = text.encode()
        self.tree = ast.parse(text)
        self.starts = [0]
        for line in self.text.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)

    def edits(self) -> Iterator[tuple[int, int, bytes]]:
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                for function in node.body:
                    if isinstance(function, ast.FunctionDef):
                        yield from self._function(function, getattr(self.module, node.name))
            elif isinstance(node, ast.FunctionDef):
                yield from self._function(node, None)

    def _function(self, function: ast.FunctionDef, cls: type | None) -> Iterator[tuple[int, int, bytes]]:
        types: Types = {}
        for arg in function.args.args:
            found = getattr(self.module, arg.annotation.id, None) if isinstance(arg.annotation, ast.Name) else None
            if isinstance(found, type) and issubclass(found, BaseModel):
                types[arg.arg] = found
        if cls is not None and (issubclass(cls, BaseModel) or function.name != "__init__"):
            types["self"] = cls
        known: dict[str, list[Any]] = {name: [None] for name in _always_none(function)}
        if cls is not None and issubclass(cls, nn.Module) and function.name == "__init__":
            rebound = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            known |= {k: v for k, v in self.facts.arguments(cls).items() if k not in rebound}
        decide = _Decider(self.facts, types, known).decide
        read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        unread = _always_none(function) - read
        for node in ast.walk(function):
            for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if isinstance(body, list):
                    yield from self._statements(body, decide)
                    yield from (self._lines(s) for s in body if _sets_only(s, unread))
            if isinstance(node, ast.IfExp) and (taken := decide(node.test)) is not None:
                yield *self._with_parentheses(node), self._text(node.body if taken else node.orelse)
            elif isinstance(node, ast.BoolOp) and (first := decide(node.values[0])) is not None:
                if first == isinstance(node.op, ast.Or):
                    bare = not isinstance(node.values[0], ast.IfExp | ast.Lambda)
                    text = self._text(node.values[0])
                    yield *self._span(node), text if bare else b"(" + text + b")"
                else:  # the first decides nothing
                    start, end = self._span(node)[0], self._span(node.values[0])[1]
                    keyword = re.match(rb"[\s)]*(?:and|or)\s+", self.text[end:])
                    assert keyword is not None
                    if b")" not in keyword[0]:
                        yield start, end + keyword.end(), b""

    def _statements(
        self, body: list[ast.stmt], decide: Callable[[ast.expr], bool | None]
    ) -> Iterator[tuple[int, int, bytes]]:
        for node in body:
            if isinstance(node, ast.Pass) and any(
                isinstance(n, _PLAIN_STATEMENTS) for n in body
            ):  # left by a condition
                yield self._lines(node)
            if not isinstance(node, ast.If) or (taken := decide(node.test)) is None:
                continue
            chosen = node.body if taken else node.orelse
            ends = bool(chosen) and isinstance(chosen[-1], ast.Return | ast.Raise)
            last = body[-1] if ends else node
            start, end = self.starts[node.lineno - 1], self.starts[last.end_lineno or 0]
            is_elif = self.text[self._span(node)[0] :].startswith(b"elif")
            if is_elif:
                continue  # the chain's head is decided first, or else it stays
            if not chosen and not any(isinstance(n, _PLAIN_STATEMENTS) for n in body if n is not node):
                yield start, end, b" " * node.col_offset + b"pass\n"
            elif chosen and self._at(chosen[0]).startswith(b"elif"):
                block = self.text[self._span(chosen[0])[0] + 2 : self.starts[chosen[-1].end_lineno or 0]]
                yield start, end, b" " * node.col_offset + block
            else:
                yield start, end, self._dedented(chosen, node.col_offset)

    def _with_parentheses(self, node: ast.AST) -> tuple[int, int]:
        """Where an expression stands, with the parentheses that only let it run over several lines."""
        start, end = self._span(node)
        before, after = (
            re.search(rb"(?:=|return) (\(\n\s*)$", self.text[:start]),
            re.match(rb"\n\s*\)", self.text[end:]),
        )
        return (before.start(1), end + after.end()) if before and after else (start, end)

    def _lines(self, node: ast.stmt) -> tuple[int, int, bytes]:
        """The removal of a statement."""
        return self.starts[node.lineno - 1], self.starts[node.end_lineno or 0], b""

    def _dedented(self, chosen: list[ast.stmt], indent: int) -> bytes:
        if not chosen:
            return b""
        first, last = chosen[0].lineno - 1, chosen[-1].end_lineno or 0
        while self.text[self.starts[first - 1] : self.starts[first]].lstrip().startswith(b"#"):
            first -= 1
        lines = self.text[self.starts[first] : self.starts[last]].split(b"\n")
        shift = chosen[0].col_offset - indent
        return b"\n".join(line[shift:] if line.startswith(b" " * shift) else line for line in lines)

    def _at(self, node: ast.AST) -> bytes:
        return self.text[self._span(node)[0] :][:4]

    def _text(self, node: ast.AST) -> bytes:
        start, end = self._span(node)
        return self.text[start:end]

    def _span(self, node: Any) -> tuple[int, int]:
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset


def _always_none(function: ast.FunctionDef) -> set[str]:
    """Local variables that are only ever set to None."""
    arguments = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    to_none: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            to_none |= {id(name) for name, value in _pairs(node.targets[0], node.value) if _is_none(value)}
    stores = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    other = {n.id for n in stores if id(n) not in to_none}
    return {n.id for n in stores} - other - arguments


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """What an assignment gives to what."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _sets_only(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement does nothing but set some of these variables."""
    if not isinstance(node, ast.Assign):
        return False
    targets = [n for t in node.targets for n in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return all(isinstance(t, ast.Name) and t.id in names for t in targets)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _Decider:
    """Evaluates conditions for every instance at once."""

    def __init__(self, facts: Facts, types: Types, known: dict[str, list[Any]]) -> None:
        self.facts, self.types, self.known = facts, types, known

    def decide(self, node: ast.expr) -> bool | None:
        """Whether a condition holds in all instances (True), in none (False); None: not known."""
        if isinstance(node, ast.BoolOp):
            decided = [self.decide(v) for v in node.values]
            short = isinstance(node.op, ast.Or)
            if short in decided[: decided.index(None) if None in decided else None]:
                return short
            return None if None in decided else not short
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.decide(node.operand)
            return None if inner is None else not inner
        found = self._values(node)
        if found is None or any(isinstance(v, Something) for v in found):
            return None
        truths = {bool(v) for v in found}
        return truths.pop() if len(truths) == 1 and not isinstance(node, ast.Constant) else None

    def _values(self, node: ast.expr) -> list[Any] | None:
        """The values of an expression of one variable, instance by instance."""
        if isinstance(node, ast.Constant):
            return [node.value]
        if isinstance(node, ast.Name) and node.id in self.known:
            return self.known[node.id]
        if isinstance(node, ast.Tuple):
            parts = [self._values(e) for e in node.elts]
            return [tuple(p[0] for p in parts if p)] if all(p and len(p) == 1 for p in parts) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.types:
            return self.facts.values(self.types[node.value.id], node.attr)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._compared(self._values(node.left), node.ops[0], self._values(node.comparators[0]))
        return None

    def _compared(self, left: list[Any] | None, op: ast.cmpop, right: list[Any] | None) -> list[Any] | None:
        if left is None or right is None or (len(left) != 1 and len(right) != 1):
            return None
        if not isinstance(op, ast.Is | ast.IsNot) and any(isinstance(v, Something) for v in [*left, *right]):
            return None
        return [_COMPARE[type(op)](a, b) for a in left for b in right]
