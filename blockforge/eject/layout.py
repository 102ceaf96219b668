"""Long lines, broken where `ruff format` breaks them."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 120


def layout(line: str, after: str = "") -> list[str]:
    """The lines of a statement or expression and of what stands behind it. One that is too long is broken at its
    longest brackets: what is in them has a line if it fits and is the arguments of a call, else each item has one."""
    brackets = list(_brackets(line))
    if len(line + after) <= WIDTH or not brackets:
        return [line + after]
    start, end = max(brackets, key=lambda pair: pair[1] - pair[0])
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    inside, is_call = line[start + 1 : end], line[start] == "(" and line[:start].rstrip(" =,(") == line[:start]
    body = [indent + inside]
    if not is_call or len(body[0]) > WIDTH:
        items = list(_items(inside))
        loop = inside.rfind(" for ")
        if loop > 0 and not any(first < loop < last for first, last in _brackets(inside)):
            element = layout(indent + inside[:loop])
            return [line[: start + 1], *element, f"{indent}{inside[loop + 1 :]}", f"{indent[4:]}{line[end:]}{after}"]
        comma = "" if is_call and len(items) == 1 else ","
        body = [broken for item in items for broken in layout(indent + item, comma)]
    return [line[: start + 1], *body, f"{indent[4:]}{line[end:]}{after}"]


def _brackets(line: str) -> Iterator[tuple[int, int]]:
    """Where brackets open and close that are in no others."""
    depth = start = 0
    for place, character in enumerate(line):
        if character in "([{":
            start, depth = (start if depth else place), depth + 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                yield start, place


def _items(inside: str) -> Iterator[str]:
    """What commas part that are in no brackets."""
    brackets, start = list(_brackets(inside)), 0
    for place in [i for i, c in enumerate(inside) if c == ","] + [len(inside)]:
        if inside[start:place].strip() and not any(first < place < last for first, last in brackets):
            yield inside[start:place].strip()
            start = place + 1
