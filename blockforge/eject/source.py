"""Modules as text: what each defines at its top, what it imports, and where names lead."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from blockforge.blocks.registry import blocks
from blockforge.eject.expressions import Definition
from blockforge.eject.simplify import simplified

PLAIN = "blockforge.eject.plain"
"""Its definitions stand for those of the same name in the package."""
KERNELS = "blockforge.kernels."


@dataclass(frozen=True)
class External:
    """A name that an import from elsewhere gives: `from torch import nn` binds `nn`."""

    module: str
    name: str | None
    alias: str

    def statement(self) -> tuple[str, str]:
        """Module and what is taken from it; nothing for a plain `import`."""
        if self.name is None:
            return self.module, "" if self.alias == self.module else f"as {self.alias}"
        return self.module, self.name if self.alias == self.name else f"{self.name} as {self.alias}"


Target = Definition | External | None


class Source:
    """One module: its text, its top-level definitions and its imports."""

    def __init__(self, name: str) -> None:
        module = sys.modules.get(name) or importlib.import_module(name)
        self.name, self.package = name, module.__package__ or ""
        self.text = simplified(inspect.getsource(module))
        self.lines = self.text.split("\n")
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}  # name -> module, and what of it
        for node in ast.parse(self.text).body:
            for defined in _names(node):
                self.definitions.setdefault(defined, node)
            self.imports.update(self._imported(node))

    def _imported(self, node: ast.stmt) -> Iterator[tuple[str, tuple[str, str | None]]]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.asname or name.name, (name.name, None)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), self.package)
            for name in node.names:
                yield name.asname or name.name, (module, name.name)

    def resolve(self, name: str) -> Target:
        """Where a name of this module leads; None for Python's own, and for what a function binds."""
        if name in self.definitions:
            return replaced(Definition(self.name, name))
        if name not in self.imports:
            return None
        module, original = self.imports[name]
        if original is None or not is_ours(module):
            return External(module, original, name)
        return replaced(Definition(module, original)) or source(module).resolve(original)

    def segment(self, node: ast.stmt) -> str:
        """A statement's text with its decorators, the comments above it and the string below it that describes it."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
        while self.lines[first - 1].lstrip().startswith("#"):
            first -= 1
        last = node.end_lineno or 0
        if isinstance(node, ast.Assign | ast.AnnAssign) and self.lines[last].lstrip().startswith('"""'):
            last = next(i for i in range(last, len(self.lines)) if self.lines[i].endswith('"""')) + 1
        return "\n".join(self.lines[first:last])


@functools.cache
def source(module: str) -> Source:
    """The module's source, read once."""
    return Source(module)


@functools.cache
def is_ours(module: str) -> bool:
    """Whether a module's source goes into the file: the package's own, and those of plugins' blocks."""
    return module.partition(".")[0] in {cls.__module__.partition(".")[0] for cls in blocks().values()}


def is_block(d: Definition) -> bool:
    """Whether it is a class of validated parameters, which is not written."""
    found = getattr(sys.modules[d.module], d.name, None)
    return isinstance(found, type) and issubclass(found, BaseModel)


def replaced(d: Definition) -> Definition | None:
    """The definition in its plain form; None where the module only imports it."""
    if d.module.startswith("blockforge.") and d.name in source(PLAIN).definitions:
        return Definition(PLAIN, d.name)
    if d.module.startswith(KERNELS) and d.module.count(".") == KERNELS.count("."):
        for form in (f"{d.module}.captured", f"{d.module}.torch_impl"):
            if importlib.util.find_spec(form) and d.name in source(form).definitions:
                return Definition(form, d.name)
    return d if d.name in source(d.module).definitions else None


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def free_names(node: ast.AST) -> set[str]:
    """Names that a piece of code reads and does not bind itself."""
    loaded, bound = set[str](), set(dir(builtins))
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            (loaded if isinstance(part.ctx, ast.Load) else bound).add(part.id)
        elif isinstance(part, ast.arg):
            bound.add(part.arg)
    return loaded - bound
