"""The text of collected definitions: members that stay, blocks as dataclasses, new names where two clash."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

from blockforge.eject.collect import Closure, bound_names, free_names, kept_decorators, module_members
from blockforge.eject.layout import WIDTH, render
from blockforge.eject.members import (
    bases,
    class_node,
    docstring,
    is_block,
    is_class,
    is_field,
    member_name,
    members,
    short_type,
)
from blockforge.eject.source import Definition, External, Source, source
from blockforge.eject.values import expression

DATACLASS = External("dataclasses", "dataclass", "dataclass")


class Text:
    """Definitions of a closure as text, in an order in which Python can run them."""

    def __init__(self, closure: Closure, taken: set[str]) -> None:
        self.closure = closure
        self.left_out = {d for d in closure.found if self._is_empty_base(d)}
        definitions = [d for d in closure.found if d not in self.left_out]
        self.externals = closure.externals | ({DATACLASS} if any(map(is_block, definitions)) else set())
        self.names = _unique_names(definitions, taken | {e.alias for e in self.externals})
        self.modules = _in_order(definitions, closure.reads)

    def _is_empty_base(self, d: Definition) -> bool:
        """A base that gives nothing: neither members that stay, nor a name for types."""
        if not is_block(d) or d in self.closure.named:
            return False
        return not self.closure.kept[d]

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """What each module is for, and its definitions."""
        for module, definitions in self.modules:
            here = source(module)
            placed = sorted(definitions, key=lambda d: here.definitions[d.name].lineno)
            yield here.purpose, [self._definition(d) for d in placed]

    def _definition(self, d: Definition) -> str:
        here, node = source(d.module), source(d.module).definitions[d.name]
        if not is_class(d):
            lines = [f"@{self._edited(x, d)}" for x in kept_decorators(d)]
            return "\n".join([*lines, self._edited(node, d)]) + _doc_after(here, node)
        return "\n".join(self._class(d))

    def _class(self, d: Definition) -> list[str]:
        lines = [f"@{self._edited(x, d)}" for x in kept_decorators(d)]
        if is_block(d):
            lines.append("@dataclass(frozen=True, kw_only=True)")
        named = ", ".join(self._bases(d))
        lines.append(f"class {self.names[d]}({named}):" if named else f"class {self.names[d]}:")
        body: list[list[str]] = []
        if doc := docstring(d):
            body.append(doc)
        simple = False
        for member in members(d):
            if member_name(member) not in self.closure.kept[d]:
                continue
            was_simple, simple = simple, not isinstance(member, ast.FunctionDef)
            text = self._field(d, member) if is_field(d, member) else self._member(d, member)
            if was_simple and simple:
                body[-1] += text
            else:
                body.append(text)
        for i, part in enumerate(body):
            lines += [*([""] if i else []), *part]
        return lines if body else [*lines, "    pass"]

    def _bases(self, d: Definition) -> Iterator[str]:
        """The bases as named here; one that is left out gives place to its own."""
        if not is_block(d):
            yield from (self._edited(b, d) for b in class_node(d).bases)
            return
        for base in bases(d):
            yield from [self.names[base]] if base not in self.left_out else self._bases(base)

    def _field(self, d: Definition, node: ast.stmt) -> list[str]:
        name = member_name(node)
        assert name is not None
        field = d.value.model_fields[name]
        default = "" if field.is_required() else f" = {render(expression(field.default, self.closure.kept_names))}"
        before = f"{name}: {short_type(field.annotation, WIDTH - 6 - len(name) - len(default))}"
        return [f"    {before}{default}", *_doc_lines(source(d.module), node)]

    def _member(self, d: Definition, node: ast.stmt) -> list[str]:
        here = source(d.module)
        decorators = getattr(node, "decorator_list", [])
        lines = [f"    @{self._edited(x, d)}" for x in decorators]
        return [*_comments_above(here, node), *lines, "    " + self._edited(node, d), *_doc_lines(here, node)]

    def _edited(self, node: ast.AST, d: Definition) -> str:
        """A node's text, with definitions under the names that they have here."""
        here = source(d.module)
        start, end = _span(here, node)
        edits = [(a - start, b - start, new) for a, b, new in self._edits(node, here)]
        text = here.text.encode()[start:end]
        for a, b, new in sorted(edits, reverse=True):
            text = text[:a] + new.encode() + text[b:]
        return text.decode()

    def _edits(self, node: ast.AST, here: Source) -> Iterator[tuple[int, int, str]]:
        free, bound = free_names(node), bound_names(node)
        if node in here.tree.body:  # an assignment: what it defines
            free = free | {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in here.definitions} - bound
        of_modules = {m.module: n for m, n in module_members(node, Definition(here.name, ""))}
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in free and part.id not in bound:
                target = here.resolve(part.id)
                if isinstance(target, Definition) and self.names[target] != part.id:
                    yield *_span(here, part), self.names[target]
            elif isinstance(part, ast.FunctionDef | ast.ClassDef) and part is node:
                new = self.names.get(Definition(here.name, part.name))
                if new is not None and new != part.name and here.definitions.get(part.name) is part:
                    yield _after_keyword(here, part)[0], _after_keyword(here, part)[1], new
            elif of_modules and isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module = here.imported(part.value.id)
                if module is not None and getattr(module, "module", None) in of_modules:
                    yield *_span(here, part), self.names[Definition(module.module, part.attr)]


def _unique_names(definitions: list[Definition], taken: set[str]) -> dict[Definition, str]:
    """A name for each definition: its own, or where that is taken one with its module's name before it."""
    names: dict[Definition, str] = {}
    used = taken | set(dir(builtins))
    for d in definitions:
        name = d.name
        if name in used:
            parts = d.module.split(".")
            stem = parts[-2] if parts[-1] == "torch_impl" else parts[-1]
            if name.isupper():
                name = f"{stem.upper()}_{name.lstrip('_')}"
            elif is_class(d):
                name = f"{''.join(p.title() for p in stem.split('_'))}{name.lstrip('_')}"
            else:
                name = f"{stem}_{name.lstrip('_')}"
        assert name not in used, name
        used.add(name)
        names[d] = name
    return names


def _in_order(definitions: list[Definition], reads: dict[str, set[str]]) -> list[tuple[str, list[Definition]]]:
    """Definitions by module, a module behind those that it uses."""
    by_module: dict[str, list[Definition]] = {}
    for d in definitions:
        by_module.setdefault(d.module, []).append(d)
    used = {m: {r for r in reads[m] if r != m} for m in [*by_module, *reads]}
    return [(m, by_module[m]) for m in TopologicalSorter(used).static_order() if m in by_module]


def _span(here: Source, node: Any) -> tuple[int, int]:
    """Where a node stands in the encoded text; decorators aside."""
    offsets = here.offsets
    return offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset


def _after_keyword(here: Source, node: ast.FunctionDef | ast.ClassDef) -> tuple[int, int]:
    """Where the name stands behind `def` or `class`."""
    start, end = _span(here, node)
    found = re.search(rb"(?:def|class)\s+(\w+)", here.text.encode()[start:end])
    assert found is not None
    return start + found.start(1), start + found.end(1)


def _doc_lines(here: Source, node: ast.stmt) -> list[str]:
    """The string behind an assignment that says what it is."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return []
    parent = _siblings(here, node)
    after = parent[parent.index(node) + 1 :][:1]
    if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
        return here.lines[after[0].lineno - 1 : after[0].end_lineno]
    return []


def _doc_after(here: Source, node: ast.stmt) -> str:
    return "".join(f"\n{line}" for line in _doc_lines(here, node))


def _siblings(here: Source, node: ast.stmt) -> list[ast.stmt]:
    bodies = [here.tree.body, *(n.body for n in here.tree.body if isinstance(n, ast.ClassDef))]
    return next(body for body in bodies if node in body)


def _comments_above(here: Source, node: ast.stmt) -> list[str]:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
    start = first
    while here.lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return here.lines[start:first]
