"""An expression -> text, the same for all that compute the same in the same way."""

from __future__ import annotations

import json
from typing import Any

from blockforge.errors import format_path
from blockforge.spec.expressions.parser import CALLS
from blockforge.spec.expressions.tree import Node


def text_of(node: Node) -> str:
    """`node` written out, with brackets around whatever has parts. Lists and mappings are written as JSON."""
    text = _written(node)
    return text[1:-1] if text.startswith("(") and node.kind != "pattern" else text


def _written(node: Node) -> str:
    parts = [_written(part) for part in node.parts]
    if node.kind == "pattern":
        pairs = zip(node.parts, parts, strict=True)
        return "".join(str(part.value) if part.kind == "constant" else f"$({text})" for part, text in pairs)
    if node.kind == "constant":
        return _constant(node.value)
    if node.kind == "name":
        return format_path(node.value)
    if node.kind in CALLS:
        return f"{node.kind}({', '.join(parts)})"
    if node.kind == "index":
        return f"{parts[0]}[{parts[1]}]"
    if node.kind == "if":
        return f"({parts[1]} if {parts[0]} else {parts[2]})"
    if node.kind in ("not", "negative"):
        return f"({'not ' if node.kind == 'not' else '-'}{parts[0]})"
    if node.kind == "compare":
        pairs = zip(node.value, parts[1:], strict=True)
        return f"({parts[0]} {' '.join(f'{sign} {part}' for sign, part in pairs)})"
    return f"({f' {node.kind} '.join(parts)})"


def _constant(value: Any) -> str:
    if isinstance(value, str):
        return value if value == "none" else f'"{value}"' if "'" in value else f"'{value}'"
    return json.dumps(value, default=str)
