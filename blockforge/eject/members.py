"""Classes of ours, member by member: which the network needs, and how blocks become plain dataclasses."""

from __future__ import annotations

import ast
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from blockforge.eject.source import PACKAGE, Definition, source

_DROPPED = {"field_validator", "model_validator", "abstractmethod"}
"""Decorators of methods that only validate, or only say what a subclass must have."""


def class_node(definition: Definition) -> ast.ClassDef:
    node = source(definition.module).definitions[definition.name]
    assert isinstance(node, ast.ClassDef)
    return node


def is_class(definition: Definition) -> bool:
    return isinstance(source(definition.module).definitions[definition.name], ast.ClassDef)


def is_block(definition: Definition) -> bool:
    """Whether it is a validated model, which becomes a dataclass: a block, or a part of a spec."""
    return is_class(definition) and issubclass(definition.value, BaseModel)


def bases(definition: Definition) -> list[Definition]:
    """The bases that are ours."""
    here = source(definition.module)
    named = [here.resolve(b.id) for b in class_node(definition).bases if isinstance(b, ast.Name)]
    return [b for b in named if isinstance(b, Definition)]


def is_field(definition: Definition, node: ast.stmt) -> bool:
    """Whether a statement in the body of a block declares one of its parameters."""
    return (
        is_block(definition)
        and isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id in definition.value.model_fields
    )


def member_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def members(definition: Definition) -> Iterator[ast.stmt]:
    """What may stay of a class: all but docstrings, and what validates or declares a block."""
    for node in class_node(definition).body:
        name = member_name(node)
        if name is None or (is_block(definition) and name == "model_config"):
            continue
        if isinstance(node, ast.FunctionDef) and any(_decorator(d) in _DROPPED for d in node.decorator_list):
            continue
        yield node


def always_kept(definition: Definition, node: ast.stmt) -> bool:
    """Whether a member stays whoever asks for it: a special method, an attribute's declaration, a method that
    torch or Python calls."""
    name = member_name(node) or ""
    if is_block(definition):
        return False
    if name.startswith("__") or (isinstance(node, ast.AnnAssign) and node.value is None):
        return True
    foreign = [c for c in definition.value.__mro__[1:] if not c.__module__.startswith(PACKAGE)]
    return any(name in vars(c) for c in foreign)


def type_text(annotation: Any) -> str:
    """A field's type as one writes it, without the bounds that were checked when the block was made."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(a) for a in args)
    if origin is typing.Literal:
        return f"Literal[{', '.join(quoted(a) if isinstance(a, str) else repr(a) for a in args)}]"
    if origin is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else type_text(a) for a in args)}]"
    return "None" if annotation is type(None) else annotation.__name__


def short_type(annotation: Any, room: int) -> str:
    """A type as text; where that is too long for a line, `str` stands for the texts that were allowed."""
    text = type_text(annotation)
    return text if len(text) <= room else re.sub(r'Literal\["[^\]]*"\]', "str", text)


def docstring(definition: Definition) -> list[str]:
    """A class's docstring; a block's without what it says of the code that stays behind."""
    node = class_node(definition)
    if not ast.get_docstring(node):
        return []
    lines = source(definition.module).lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
    if not is_block(definition):
        return lines
    kept, skipping = [], False
    for line in lines[:-1]:
        skipping = line.startswith(("    Cost:", "    Raises:")) or (skipping and line.startswith("     "))
        if not skipping:
            kept.append(line)
    return [*kept, lines[-1]]


def quoted(text: str) -> str:
    """A string literal in double quotes."""
    import json

    return json.dumps(text, ensure_ascii=False)


def _decorator(node: ast.expr) -> str:
    call = node.func if isinstance(node, ast.Call) else node
    return call.id if isinstance(call, ast.Name) else call.attr if isinstance(call, ast.Attribute) else ""
