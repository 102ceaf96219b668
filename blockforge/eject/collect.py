"""The definitions that a network reaches, as text: of classes the methods that something calls, and no blocks."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from blockforge.eject.expressions import Definition
from blockforge.eject.source import PLAIN, External, free_names, is_block, source

NAMESPACE = External("types", "SimpleNamespace", "SimpleNamespace")
_SHOWN_ALONE = {"extra_repr", "no_weight_decay"}
"""Methods that say something of a module and compute nothing."""


class Definitions:
    """Everything that some definitions reach. A method stays if something has an attribute of its name, or if torch or
    Python calls it. `asked`: such names in other text of the file."""

    def __init__(self, roots: Iterable[Definition], taken: set[str], asked: set[str]) -> None:
        self.kept: dict[Definition, list[ast.stmt]] = {}  # members of a class; of anything else itself
        self.externals: set[External] = set()
        self._needs: dict[Definition, dict[Definition, None]] = defaultdict(dict)
        self._blocks: dict[Definition, set[str]] = defaultdict(set)
        self._asked = set(asked)
        for root in roots:
            self._add(root)
        while sum(self._keep_members(d) for d in list(self.kept)):
            pass
        self.ordered = list(self._in_order())
        self.names = _unique_names(self.ordered, taken | {e.alias for e in self.externals})

    def texts(self) -> list[str]:
        """The definitions, each after those that it needs."""
        return [self._text(d) for d in self.ordered]

    def _add(self, d: Definition) -> None:
        if d in self.kept:
            return
        self.kept[d] = []
        node = _node(d)
        for part in [*node.bases, *node.decorator_list] if isinstance(node, ast.ClassDef) else [node]:
            self._read(d, part)

    def _keep_members(self, d: Definition) -> int:
        node, kept = _node(d), self.kept[d]
        body = node.body if isinstance(node, ast.ClassDef) else []
        members = [m for m in body if m not in kept and self._is_wanted(m)]
        for member in members:
            kept.append(member)
            self._read(d, member)
        return len(members)

    def _is_wanted(self, member: ast.stmt) -> bool:
        if not isinstance(member, ast.FunctionDef):
            return isinstance(member, ast.Assign | ast.AnnAssign)
        name = member.name
        called = name in self._asked or hasattr(nn.Module, name) or name in ("__new__", "__call__", "reset_parameters")
        return called and name not in _SHOWN_ALONE

    def _read(self, d: Definition, node: ast.AST) -> None:
        here = source(d.module)
        for name in sorted(free_names(node)):
            target = here.resolve(name)
            if isinstance(target, Definition) and is_block(target):  # in an annotation; see `plain_value`
                self.externals.add(NAMESPACE)
                self._blocks[d].add(name)
            elif isinstance(target, Definition):
                self._needs[d][target] = None
                self._add(target)
            elif target is not None:
                self.externals.add(target)
        self._asked |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}

    def _in_order(self) -> Iterable[Definition]:
        """Plain layers first, and whatever a definition needs before it."""
        seen: set[Definition] = set()

        def visit(d: Definition) -> Iterable[Definition]:
            if d not in seen:
                seen.add(d)
                for needed in self._needs[d]:
                    yield from visit(needed)
                yield d

        for d in sorted(self.kept, key=lambda d: d.module != PLAIN):
            yield from visit(d)

    def _text(self, d: Definition) -> str:
        here, node = source(d.module), _node(d)
        text = self._class(d, node) if isinstance(node, ast.ClassDef) else here.segment(node)
        if isinstance(node, ast.FunctionDef) and "See the package's" in text:
            package = source(d.module.rpartition(".")[0])
            text = text.replace(_doc_lines(d), _doc_lines(Definition(package.name, d.name)), 1)
        for block in self._blocks[d]:
            text = re.sub(rf"(?<![\w.\"`]){block}(?!\w)", NAMESPACE.alias, text)
        for needed in {d: None, **self._needs[d]}:
            if self.names[needed] != needed.name:
                text = re.sub(rf"(?<![\w.\"]){needed.name}(?!\w)", self.names[needed], text)
        return text

    def _class(self, d: Definition, node: ast.ClassDef) -> str:
        here = source(d.module)
        bases = ", ".join(ast.unparse(b) for b in node.bases)
        text = "".join(f"@{ast.unparse(x)}\n" for x in node.decorator_list)
        text += f"class {node.name}({bases}):\n" if bases else f"class {node.name}:\n"
        if doc := _module_doc(d):
            text += f"{doc}\n"
        before: ast.stmt | None = None
        for member in sorted(self.kept[d], key=lambda m: m.lineno):
            is_block = isinstance(member, ast.FunctionDef) or before is None or isinstance(before, ast.FunctionDef)
            text += "\n" * (is_block and not text.endswith(":\n")) + here.segment(member) + "\n"
            before = member
        return text.rstrip() if doc or before is not None else f"{text}    pass"


def _node(d: Definition) -> ast.stmt:
    return source(d.module).definitions[d.name]


def _doc_lines(d: Definition) -> str:
    """The docstring as it stands, without what it says of a block's costs and checks and of kernels."""
    node, lines = _node(d), source(d.module).lines
    if not isinstance(node, ast.ClassDef | ast.FunctionDef) or ast.get_docstring(node) is None:
        return ""
    text = "\n".join(lines[node.body[0].lineno - 1 : node.body[0].end_lineno])
    text = re.sub(r"\n +backend: [^\n]*(\n {12,}[^\n]*)*", "", text)
    return re.sub(r"\n    (Cost|Raises):[^\n]*(\n     [^\n]*)*", "", text)


def _module_doc(d: Definition) -> str:
    """A class's docstring; that of a block's module is the block's, with what it adds."""
    doc = _doc_lines(d)
    see = re.match(r'\s*"""See `(\w+)`\.\s*', doc)
    if see is None or see[1] not in source(d.module).definitions:
        return doc
    parts = (_doc_lines(Definition(d.module, see[1])), doc[see.end() :])
    own, rest = (part.rstrip().removesuffix('"""').rstrip() for part in parts)
    added = f"\n\n    {rest}" if rest else ""
    return f'{own}{added}\n    """' if "\n" in own + added else f'{own}"""'


def _unique_names(definitions: list[Definition], taken: set[str]) -> dict[Definition, str]:
    """A name for each: a module's without the ending Module, and where two clash one with its file's name before it."""
    names: dict[Definition, str] = {}
    for d in definitions:
        name = d.name
        if name.endswith("Module") and name.removesuffix("Module") in source(d.module).definitions:
            name = name.removesuffix("Module")
        if name in taken:
            name = f"{d.module.split('.')[-1]}_{name.lstrip('_')}"
            name = name.upper() if d.name.isupper() else name.title().replace("_", "") if d.name[0].isupper() else name
        taken.add(name)
        names[d] = name
    return names
