"""Our own modules as text: what each defines at its top, what it imports, and where names lead."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from blockforge.eject.facts import Facts
from blockforge.eject.fold import fold

PACKAGE = "blockforge"
KERNELS = f"{PACKAGE}.kernels."


@dataclass(frozen=True)
class Definition:
    """A name that a module of ours defines at its top."""

    module: str
    name: str

    @property
    def value(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)


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


@dataclass(frozen=True)
class Module:
    """A module of ours, bound to a name by `from package import module`."""

    module: str


Target = Definition | External | Module


class Source:
    """One module: its text, its top-level definitions and its imports."""

    def __init__(self, name: str) -> None:
        module: ModuleType = importlib.import_module(name)
        self.name, self.is_package = name, hasattr(module, "__path__")
        self.text = inspect.getsource(module)
        if (facts := _facts.get()) is not None:
            self.text = fold(module, self.text, facts)
        self.lines = self.text.split("\n")
        self.offsets = [0, *itertools.accumulate(len(line.encode()) + 1 for line in self.lines)]
        self.tree = ast.parse(self.text)
        doc = ast.get_docstring(self.tree) or ""
        self.purpose = doc.partition("\n\n")[0].replace("\n", " ")
        self.definitions: dict[str, ast.stmt] = {}
        self._imports: dict[str, tuple[str, str | None]] = {}  # name -> module, and what of it
        for node in self.tree.body:
            for defined in _names(node):
                self.definitions[defined] = node
            self._imports.update(_imported(node))

    def imported(self, alias: str) -> Target | None:
        """Where a name leads that this module imports."""
        if alias not in self._imports:
            return None
        module, name = self._imports[alias]
        if name is not None and (module == PACKAGE or module.startswith(f"{PACKAGE}.")):
            return _ours(module, name)
        return External(module, name, alias)

    def resolve(self, name: str) -> Target | None:
        """Where a name of this module leads; None for Python's own."""
        if (plain := _plain_kernel(self.name, name)) is not None:
            return plain
        if name in self.definitions:
            return Definition(self.name, name)
        target = self.imported(name)
        assert target is not None or hasattr(builtins, name), f"{name} in {self.name}"
        return target


_facts: ContextVar[Facts | None] = ContextVar("facts", default=None)
_read: ContextVar[dict[str, Source]] = ContextVar("read")


@contextmanager
def folded(facts: Facts) -> Iterator[None]:
    """While it lasts, sources are read without what a network does not use."""
    tokens = _facts.set(facts), _read.set({})
    try:
        yield
    finally:
        _facts.reset(tokens[0])
        _read.reset(tokens[1])


def source(module: str) -> Source:
    """The module's source, read once for each network."""
    read = _read.get()
    if module not in read:
        read[module] = Source(module)
    return read[module]


def _ours(module: str, name: str) -> Target:
    """The definition behind `from module import name`, through any re-export."""
    if (plain := _plain_kernel(module, name)) is not None:
        return plain
    if importlib.util.find_spec(f"{module}.{name}") if source(module).is_package else False:
        return Module(f"{module}.{name}")
    target = source(module).resolve(name)
    assert target is not None, f"{module}.{name}"
    return target


def _plain_kernel(module: str, name: str) -> Definition | None:
    """An operator of `kernels` is its form in standard operations: what picks a faster one stays behind."""
    if not module.startswith(KERNELS) or module.count(".") != KERNELS.count(".") or not source(module).is_package:
        return None
    plain = source(f"{module}.torch_impl")
    return Definition(plain.name, name) if name in plain.definitions else None


def _imported(node: ast.stmt) -> Iterator[tuple[str, tuple[str, str | None]]]:
    if isinstance(node, ast.Import):
        for name in node.names:
            yield name.asname or name.name, (name.name, None)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for name in node.names:
            yield name.asname or name.name, (node.module, name.name)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []
