"""Functions without detours: whoever asks whether a faster way may be taken, or a graph is captured, is told no."""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Iterator

QUESTIONS = frozenset({"untouched", "gives_own", "is_exporting", "is_compiling", "is_dynamo_compiling", "is_tracing"})
QUESTIONS |= {"is_symbolic", "is_transformed", "rehearsing"}
"""Functions whose answer is no on a page of plain PyTorch."""


@functools.cache
def rewritten(function: str) -> str:
    """The text of a function, every condition on `QUESTIONS` decided; activations and classifiers are just called,
    maps are just added."""
    text = textwrap.dedent(function).encode()
    while edit := next(_edits(text), None):
        start, end, new = edit
        text = text[:start] + new.encode() + text[end:]
    return textwrap.indent(text.decode(), function[: len(function) - len(function.lstrip())])


def _edits(text: bytes) -> Iterator[tuple[int, int, str]]:
    """Places of the text and what is to stand there, the first of which may be put there."""
    tree, starts = ast.parse(text), [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]

    def lines(*nodes: ast.stmt) -> tuple[int, int]:
        return (starts[nodes[0].lineno - 1], starts[nodes[-1].end_lineno or 0]) if nodes else (0, 0)

    def span(node: ast.expr) -> tuple[int, int]:
        last = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return starts[node.lineno - 1] + node.col_offset, last

    for node in ast.walk(tree):
        match node:
            case ast.If(test=ast.Constant(value=bool(answer)), body=body, orelse=orelse):
                start, end = lines(*(body if answer else orelse))
                taken = textwrap.dedent(text[start:end].decode())
                yield *lines(node), textwrap.indent(taken, " " * node.col_offset)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=bool(answer))):
                same = [n for n in names if n.id == name]
                if sum(isinstance(n.ctx, ast.Store) for n in same) == 1:
                    reads = [(*span(n), str(answer)) for n in same if isinstance(n.ctx, ast.Load)]
                    yield from reads or [(*lines(node), "")]
            case ast.expr() if new := _plain(node):
                start, end = span(node)
                is_term = isinstance(node, ast.BoolOp) and not isinstance(new, ast.BoolOp)
                if is_term and _in_parentheses(text, start, end):
                    start, end = start - 1, end + 1
                yield start, end, new if isinstance(new, str) else ast.unparse(new).replace("'", '"')


def _in_parentheses(text: bytes, start: int, end: int) -> bool:
    """Whether parentheses that only group are right around a place, which what is one term does not need."""
    return text[start - 1 : start] + text[end : end + 1] == b"()" and text[start - 2 : start - 1] in (b" ", b"(", b"[")


def _plain(node: ast.expr) -> ast.expr | str | None:
    """A simpler form of the expression, if there is one."""
    match node:
        case ast.Call(func=ast.Name(id="activate" | "classify"), args=[module, x, *_]):
            return ast.Call(module, [x], [])
        case ast.Call(func=ast.Name(id="added"), args=[x, y]):
            return ast.BinOp(x, ast.Add(), y)
        case ast.Call(func=ast.Name(id="residual_dwconv"), args=[module, ast.Name(id=x)]):
            return f"{x} + {ast.unparse(module)}({x}.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in QUESTIONS:
            return "False"
        case ast.Call(func=ast.Name(id="all" | "any"), args=[ast.GeneratorExp(elt=ast.Constant(value=bool(answer)))]):
            return str(answer)
        case ast.UnaryOp(op=ast.Not(), operand=ast.Constant(value=bool(answer))):
            return str(not answer)
        case ast.IfExp(test=ast.Constant(value=bool(answer)), body=body, orelse=orelse):
            return body if answer else orelse
        case ast.BoolOp(op=op, values=values):
            answers = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, bool)]
            left = [v for v in values if not (isinstance(v, ast.Constant) and isinstance(v.value, bool))]
            deciding = isinstance(op, ast.Or)
            if deciding in answers or not left:
                return str(deciding if deciding in answers else not deciding)
            return None if not answers else ast.BoolOp(op, left) if len(left) > 1 else left[0]
    return None
