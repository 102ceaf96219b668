"""What a network's file must hold: the definitions that it reaches, and of classes the members that it reaches."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from blockforge.eject.members import (
    always_kept,
    bases,
    class_node,
    is_block,
    is_class,
    is_field,
    member_name,
    members,
    type_text,
)
from blockforge.eject.source import Definition, External, Module, Target, source
from blockforge.eject.values import classes


class Closure:
    """Everything reachable from some definitions, by names.

    A member of a class stays if some reachable code has an attribute of its name: after `self` that of the
    class's own family, elsewhere that of any class. What is only ever called, or asked for by `hasattr`, keeps
    methods alone.
    """

    def __init__(self, roots: Iterable[Definition], methods: Iterable[str] = ()) -> None:
        self.found: dict[Definition, None] = {}
        self.kept: dict[Definition, set[str]] = defaultdict(set)
        self.externals: set[External] = set()
        self.asked: set[tuple[str, Definition | None, bool]] = {
            (m, None, True) for m in methods
        }  # name, whose `self`, a call?
        self.named: set[Definition] = set()  # by code, and not as a base
        self.reads: dict[str, set[str]] = defaultdict(set)  # module -> the modules whose definitions it uses
        for root in roots:
            self._name(root)
        self.settle()

    def settle(self) -> None:
        """Read on until nothing more is reached."""
        size = -1
        while size != (size := sum(map(len, self.kept.values())) + len(self.found)):
            for definition in [d for d in self.found if is_class(d)]:
                for node in members(definition):
                    name = member_name(node)
                    assert name is not None
                    if name not in self.kept[definition] and self._wanted(definition, node, name):
                        self.kept[definition].add(name)
                        self._read_member(definition, node)

    def kept_names(self, cls: type) -> set[str]:
        """The members that stay of a class and its bases."""
        return {n for d, names in self.kept.items() if issubclass(cls, d.value) for n in names}

    def _wanted(self, definition: Definition, node: ast.stmt, name: str) -> bool:
        if always_kept(definition, node):
            return True
        is_method = isinstance(node, ast.FunctionDef)
        return any(
            name == asked and (is_method or not call) and (owner is None or _related(owner, definition))
            for asked, owner, call in self.asked
        )

    def _name(self, definition: Definition) -> None:
        self.named.add(definition)
        self._add(definition)

    def _add(self, definition: Definition) -> None:
        if definition in self.found:
            return
        self.found[definition] = None
        if not is_class(definition):
            self._read(source(definition.module).definitions[definition.name], definition, None)
            return
        for base in bases(definition):
            self.reads[definition.module].add(base.module)
            self._add(base)
        node = class_node(definition)
        for part in [*([] if is_block(definition) else node.bases), *kept_decorators(definition)]:
            self._read(part, definition, None)

    def _read_member(self, definition: Definition, node: ast.stmt) -> None:
        if not is_field(definition, node):
            self._read(node, definition, definition)
            return
        field = definition.value.model_fields[member_name(node)]
        self._read(ast.parse(type_text(field.annotation)), definition, None, field.annotation)
        if isinstance(node, ast.AnnAssign) and node.value is not None and not field.is_required():
            self.values(field.default, definition.module)

    def values(self, value: Any, module: str = "") -> None:
        """Reach the classes that a rendered value names."""
        for found in classes(value):
            self.reads[module].add(found.__module__)
            self._name(Definition(found.__module__, found.__name__))

    def _read(self, node: ast.AST, at: Definition, owner: Definition | None, annotation: Any = None) -> None:
        for name in free_names(node):
            target = _in_annotation(name, annotation) or source(at.module).resolve(name)
            if isinstance(target, Definition):
                self.reads[at.module].add(target.module)
                self._name(target)
            elif isinstance(target, External):
                self.externals.add(target)
        for module, name in module_members(node, at):
            self.reads[at.module].add(module.module)
            self._name(Definition(module.module, name))
        self.asked.update(_attributes(node, owner))


def kept_decorators(definition: Definition) -> list[ast.expr]:
    """A definition's decorators but those of our registry."""
    node = source(definition.module).definitions[definition.name]
    return [d for d in getattr(node, "decorator_list", ()) if not _registers(d, definition)]


def _registers(node: ast.expr, definition: Definition) -> bool:
    call = node.func if isinstance(node, ast.Call) else node
    target = source(definition.module).resolve(call.id) if isinstance(call, ast.Name) else None
    return isinstance(target, Definition) and target.module == "blockforge.blocks.registry"


def module_members(node: ast.AST, at: Definition) -> Iterator[tuple[Module, str]]:
    """`module.name` for modules of ours."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target: Target | None = source(at.module).imported(part.value.id)
            if isinstance(target, Module):
                yield target, part.attr


def free_names(node: ast.AST) -> set[str]:
    """Names that a piece of code reads and does not bind itself."""
    loaded = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return loaded - bound_names(node)


def bound_names(node: ast.AST) -> set[str]:
    """Names that the functions in a piece of code bind: arguments, and what they assign."""
    bound: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            bound.add(part.arg)
    for function in [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.Lambda)]:
        for part in ast.walk(function):
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
                bound.add(part.id)
            elif isinstance(part, ast.FunctionDef) and part is not function:
                bound.add(part.name)
    for part in ast.walk(node):
        if isinstance(part, ast.comprehension):
            bound |= {n.id for n in ast.walk(part.target) if isinstance(n, ast.Name)}
    return bound


def _in_annotation(name: str, annotation: Any) -> Definition | External | None:
    """A class that a field's type names, wherever it was defined; and `Literal`."""
    import typing

    if annotation is None:
        return None
    if name == "Literal":
        return External("typing", "Literal", "Literal")
    if isinstance(annotation, type) and annotation.__name__ == name and annotation.__module__.startswith("blockforge"):
        return Definition(annotation.__module__, name)
    found = (_in_annotation(name, a) for a in typing.get_args(annotation) if a is not Ellipsis)
    return next((f for f in found if f is not None), None)


def _attributes(node: ast.AST, owner: Definition | None) -> Iterator[tuple[str, Definition | None, bool]]:
    called = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            own = isinstance(part.value, ast.Name) and part.value.id in ("self", "cls")
            yield part.attr, owner if own else None, id(part) in called
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in ("hasattr", "getattr"):
            asked = part.args[1]
            if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
                yield asked.value, None, True


def _related(a: Definition, b: Definition) -> bool:
    return issubclass(a.value, b.value) or issubclass(b.value, a.value)
