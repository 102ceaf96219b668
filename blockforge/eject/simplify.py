"""Source without its detours: whoever asks whether a faster way may be taken, or a graph is captured, is told no."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

QUESTIONS = frozenset({"untouched", "gives_own", "is_exporting", "is_compiling", "is_dynamo_compiling", "is_tracing"})
QUESTIONS |= {"is_symbolic", "is_transformed"}
"""Functions whose answer is no on a page of plain PyTorch."""
Edit = tuple[int, int, bytes]


def simplified(text: str) -> str:
    """The text of a module in which every condition on `QUESTIONS` is decided; activations and classifiers just run."""
    while edits := sorted(_Simplifier(text).edits()):
        encoded, end, outer = text.encode(), -1, []
        for edit in edits:  # an outer edit first; what is inside it waits for the next round
            if edit[0] >= end:
                outer.append(edit)
                end = edit[1]
        for start, stop, new in reversed(outer):
            encoded = encoded[:start] + new + encoded[stop:]
        text = encoded.decode()
    return text


class _Simplifier:
    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.tree = ast.parse(text)
        self.starts = [0]
        for line in self.text.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)

    def edits(self) -> Iterator[Edit]:
        for function in ast.walk(self.tree):
            if isinstance(function, ast.FunctionDef):
                known = _known(function)
                for node in ast.walk(function):
                    yield from self._edits_of(node, known)
                read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
                for node in ast.walk(function):
                    if isinstance(node, ast.Assign) and _target(node) in known.keys() - read:
                        yield self._line(node), self._line_after(node), b""

    def _edits_of(self, node: ast.AST, known: dict[str, bool]) -> Iterator[Edit]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("activate", "classify"):
            yield *self._span(node), self._of(node.args[0]) + b"(" + self._of(node.args[1]) + b")"
        elif isinstance(node, ast.IfExp) and (taken := decided(node.test, known)) is not None:
            yield *self._span(node), self._of(node.body if taken else node.orelse)
        elif isinstance(node, ast.BoolOp) and decided(node, known) is None:
            left = [v for v in node.values if decided(v, known) is None]
            if len(left) < len(node.values):
                word = b" or " if isinstance(node.op, ast.Or) else b" and "
                yield *self._outside(node), word.join(map(self._of, left))
        elif isinstance(node, ast.If) and (taken := decided(node.test, known)) is not None:
            body = node.body if taken else node.orelse
            yield self._line(node), self._line_after(node), self._dedented(body, node.col_offset)

    def _dedented(self, body: list[ast.stmt], indent: int) -> bytes:
        if not body:
            return b""
        lines = self.text[self._line(body[0]) : self._line_after(body[-1])].split(b"\n")
        return b"\n".join(line[body[0].col_offset - indent :] for line in lines)

    def _line(self, node: ast.stmt) -> int:
        return self.starts[node.lineno - 1]

    def _line_after(self, node: ast.stmt) -> int:
        return self.starts[node.end_lineno or 0]

    def _span(self, node: ast.expr) -> tuple[int, int]:
        last = self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return self.starts[node.lineno - 1] + node.col_offset, last

    def _outside(self, node: ast.expr) -> tuple[int, int]:
        """Where an expression stands, with parentheses around it."""
        start, end = self._span(node)
        is_bare = self.text[start - 1 : start] != b"(" or re.search(rb"\w\($", self.text[:start])
        return (start, end) if is_bare else (start - 1, end + 1)

    def _of(self, node: ast.expr) -> bytes:
        start, end = self._span(node)
        return self.text[start:end]


def _known(function: ast.FunctionDef) -> dict[str, bool]:
    """Variables that only ever have one answer."""
    known: dict[str, bool] = {}
    lost: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and (name := _target(node)):
            value = decided(node.value, known)
            if value is None or known.get(name, value) is not value:
                lost.add(name)
            else:
                known[name] = value
    return {name: value for name, value in known.items() if name not in lost}


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def decided(node: ast.expr, known: dict[str, bool]) -> bool | None:
    """Whether a condition holds; None: not known."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.GeneratorExp):
        return decided(node.args[0].elt, known)  # all(...), any(...)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return False if name in QUESTIONS else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = decided(node.operand, known)
        return None if inner is None else not inner
    if isinstance(node, ast.BoolOp):
        values, ends = [decided(v, known) for v in node.values], isinstance(node.op, ast.Or)
        return ends if ends in values else None if None in values else not ends
    return None
