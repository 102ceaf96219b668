"""Modules as text: what each defines at its top, what it imports, where names lead, and all that a network reaches."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel
from torch import nn

from blockforge.blocks.registry import blocks
from blockforge.eject.rewriting import rewritten

_OF_PACKAGE = "See the package's"
PLAIN = "blockforge.eject.plain"
"""Its definitions stand for those of the same name in the package."""
KERNELS = "blockforge.kernels."


class Definition(NamedTuple):
    """What a module of ours, or of a plugin, defines at its top."""

    module: str
    name: str


class External(NamedTuple):
    """A name that an import from elsewhere gives: `from torch import nn` binds `nn`; name "": a plain `import`."""

    module: str
    name: str
    alias: str


class Source:
    """One module: its lines, its top-level definitions and its imports."""

    def __init__(self, name: str) -> None:
        module = sys.modules.get(name) or importlib.import_module(name)
        self.name, text = name, inspect.getsource(module)
        self.lines = text.split("\n")
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[str, str]] = {}  # name -> module, and what of it
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                stored = (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
                self.definitions |= dict.fromkeys(stored, node)
            elif isinstance(node, ast.Import):
                self.imports |= {name.asname or name.name: (name.name, "") for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                of = importlib.util.resolve_name("." * node.level + (node.module or ""), module.__package__)
                self.imports |= {name.asname or name.name: (of, name.name) for name in node.names}

    def resolve(self, name: str) -> Definition | External | None:
        """Where a name of this module leads; None for Python's own, and for what a function binds."""
        if name not in self.definitions:
            module, original = self.imports.get(name, ("", ""))
            if module and original and is_ours(module):
                return source(module).resolve(original)
            return External(module, original, name) if module else None
        defined = getattr(sys.modules[self.name], name, None)
        if isinstance(defined, type) and issubclass(defined, BaseModel):  # of a block the file has the parameters alone
            return External("types", "SimpleNamespace", "SimpleNamespace")
        forms = [PLAIN] if self.name.startswith("blockforge.") else []
        if self.name.startswith(KERNELS) and hasattr(sys.modules[self.name], "__path__"):
            forms += [f"{self.name}.captured", f"{self.name}.torch_impl"]
        forms = [form for form in forms if importlib.util.find_spec(form) and name in source(form).definitions]
        return Definition(forms[0] if forms else self.name, name)

    def segment(self, node: ast.stmt) -> str:
        """A statement's text with its decorators, the comments above it and the string below it that describes it."""
        first = min(part.lineno for part in [node, *getattr(node, "decorator_list", ())]) - 1
        while self.lines[first - 1].lstrip().startswith("#"):
            first -= 1
        last = node.end_lineno or 0
        if isinstance(node, ast.Assign | ast.AnnAssign) and self.lines[last].lstrip().startswith('"""'):
            last = next(i for i in range(last, len(self.lines)) if self.lines[i].endswith('"""')) + 1
        text = "\n".join(self.lines[first:last])
        return rewritten(text) if isinstance(node, ast.FunctionDef) else text

    def text(self, name: str, asked: set[str]) -> str:
        """A definition; of a class the methods that something asks for, or torch or Python call."""
        node = self.definitions[name]
        text, doc = self.segment(node), self.doc(name)
        if isinstance(node, ast.FunctionDef):
            return text.replace(ast.get_docstring(node, clean=False) or "", doc, 1) if _OF_PACKAGE in text else text
        if not isinstance(node, ast.ClassDef):
            return text
        first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)]) - 1
        head = "\n".join(self.lines[first : node.body[0].lineno - 1])
        members = [f'    """{doc}"""\n'] if doc else []
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and _is_wanted(member, asked):
                members.append(f"{self.segment(member)}\n" if not members else f"\n{self.segment(member)}\n")
            elif isinstance(member, ast.Assign | ast.AnnAssign):
                members.append(self.segment(member))
        return re.sub("\n{3,}", "\n\n", "\n".join([head, *members] if members else [head, "    pass"])).rstrip()

    def doc(self, name: str) -> str:
        """A docstring, without what it says of a block's costs and checks and of kernels. A module's is its block's,
        with what it adds, an operator's its package's."""
        node = self.definitions[name]
        text = (isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False)) or ""
        if _OF_PACKAGE in text:
            return source(self.name.rpartition(".")[0]).doc(name)
        text = re.sub(r"\n +backend: [^\n]*(\n {12,}[^\n]*)*", "", text)
        text = re.sub(r"\n    (Cost|Raises):[^\n]*(\n     [^\n]*)*", "", text)
        see = re.match(r"See `(\w+)`\.\s*", text)
        if see is None or see[1] not in self.definitions:
            return text
        own, added = self.doc(see[1]), text[see.end() :].rstrip()
        return f"{own.rstrip()}\n\n    {added}\n    " if added else own


def _is_wanted(method: ast.FunctionDef, asked: set[str]) -> bool:
    name, marks = method.name, {ast.unparse(mark) for mark in method.decorator_list}
    called = name in asked or hasattr(nn.Module, name) or name in ("__new__", "__call__", "reset_parameters")
    return called and name not in ("extra_repr", "no_weight_decay") and "faster" not in marks


@functools.cache
def source(module: str) -> Source:
    """The module's source, read once."""
    return Source(module)


@functools.cache
def is_ours(module: str) -> bool:
    """Whether a module's source goes into the file: the package's own, and those of plugins' blocks."""
    return module.partition(".")[0] in {cls.__module__.partition(".")[0] for cls in blocks().values()}


@functools.cache
def read_names(text: str) -> tuple[list[str], set[str]]:
    """Names that a definition reads and does not bind itself, and attributes that it asks for."""
    node = ast.parse(text).body[0]
    parts = [*node.bases, *node.decorator_list, *node.body] if isinstance(node, ast.ClassDef) else [node]
    free: set[str] = set()
    for part in parts:  # a name may be one method's variable and another's function
        names = [n for n in ast.walk(part) if isinstance(n, ast.Name)]
        bound = {n.arg for n in ast.walk(part) if isinstance(n, ast.arg)}
        bound |= {n.id for n in names if not isinstance(n.ctx, ast.Load)}
        free |= {n.id for n in names} - bound
    return sorted(free - set(dir(builtins))), {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


class Reached:
    """All that some definitions need. `asked`: attributes that other text of the file asks for.

    Attributes:
        texts: of each definition, after those that it needs.
        externals: what they import.
    """

    def __init__(self, roots: Iterable[Definition], asked: set[str]) -> None:
        roots, known = list(roots), -1
        while known < len(asked):  # a method that is kept asks for others
            known = len(asked)
            self.texts: dict[Definition, str] = {}
            self.externals: set[External] = set()
            self._needs: dict[Definition, dict[str, Definition]] = {}
            for root in roots:
                self._visit(root, asked)
            asked = asked.union(*(read_names(text)[1] for text in self.texts.values()))

    def _visit(self, d: Definition, asked: set[str]) -> None:
        if d in self._needs:
            return
        here, self._needs[d] = source(d.module), {}
        text = here.text(d.name, asked)
        for name in read_names(text)[0]:
            target = here.resolve(name)
            if isinstance(target, Definition):
                self._needs[d][name] = target
                self._visit(target, asked)
            elif target is not None:
                self.externals.add(target)
                text = _renamed(text, name, target.alias)
        self.texts[d] = text

    def named(self, taken: set[str]) -> dict[Definition, str]:
        """A name for each, now those of the texts: a module's without the ending Module, and where two clash one with
        its file's name before it."""
        names: dict[Definition, str] = {}
        for d in self.texts:
            short = d.name.removesuffix("Module")
            name = short if short in source(d.module).definitions else d.name
            if name in taken:
                name = f"{d.module.split('.')[-1]}_{name.lstrip('_')}"
                name = (
                    name.upper() if d.name.isupper() else name.title().replace("_", "") if d.name[0].isupper() else name
                )
            taken.add(name)
            names[d] = name
        for d, text in self.texts.items():
            for name, needed in {d.name: d, **self._needs[d]}.items():
                text = _renamed(text, name, names[needed])
            self.texts[d] = text
        return names


def _renamed(text: str, name: str, new: str) -> str:
    return text if name == new else re.sub(rf"(?<![\w.\"`]){name}(?!\w)", new, text)
