"""Where the things come from that a spec or a study names: a plugin's file, a package, a module.

What is saved says so, by which the error names it where such a thing is missing.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from blockforge.errors import Locs, Path, shown_path
from blockforge.plugins import GIVEN, PREFIX, REGISTRIES, Registry, is_ours

_COMMENT = re.compile(r"# needs (--plugin|package|module) ([^\n]{1,200}) for ([\w, -]{1,2000})")
_HOW = {
    "--plugin": "blockforge ... --plugin {}, or in Python blockforge.blocks.registry.load_plugin",
    "package": "pip install {}",
    "module": "import {} first",
}


class Source(NamedTuple):
    """Where a thing comes from: `--plugin` and a file as it was given, a `package`, or a `module` that was imported."""

    kind: str
    name: str

    def how(self) -> str:
        """How to get it."""
        return _HOW[self.kind].format(shlex.quote(self.name) if self.kind == "--plugin" else self.name)

    def where(self) -> str:
        """For other machines, where a plugin's file may lie elsewhere: its name, `package NAME` or `module NAME`."""
        return os.path.basename(self.name) if self.kind == "--plugin" else f"{self.kind} {self.name}"

    @classmethod
    def at(cls, where: str) -> Source:
        """What `where` stands for."""
        kind, _, name = where.partition(" ")
        return cls(kind, name) if kind in ("package", "module") and name else cls("--plugin", where)


def needed(tree: Any) -> dict[Source, list[str]]:
    """Where those things come from that a spec's plain tree names and that are not blockforge's own."""
    texts, names = set(_texts(tree)), dict[Source, list[str]]()
    for registry in REGISTRIES.values():
        for name, module in sorted(registry.modules().items() if registry.in_specs else ()):
            if name in texts and (source := source_of(module)) is not None:
                names.setdefault(source, []).append(name)
    return {source: sorted(its_names) for source, its_names in names.items()}


def sources() -> set[Source]:
    """Where everything comes from that is not ours."""
    for registry in REGISTRIES.values():
        registry.load()
    modules = {module for registry in REGISTRIES.values() for module in registry.modules().values()}
    return {source for module in modules if (source := source_of(module)) is not None}


def comments(tree: Any) -> str:
    """`# needs --plugin average.py for average_pool`, a line for each plugin of a spec's tree."""
    return "".join(f"# needs {s.kind} {shown_path(s.name)} for {', '.join(b)}\n" for s, b in needed(tree).items())


def hint_in_comment(message: str, locs: Locs, path: Path) -> str | None:
    """The hint for a name that is not known, where the file that has it says where it is from."""
    place = locs.value(path)
    for line in place.source.lines[:20] if place is not None else ():
        if (match := _COMMENT.fullmatch(line)) and any(f"'{name}'" in message for name in match[3].split(", ")):
            return f"the file says where it is from: {Source(match[1], match[2]).how()}"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(child)


def source_in(registry: Registry[Any], name: str) -> Source | None:
    """Where a thing of a registry comes from; None: it is ours, or there is none."""
    return source_of(registry.modules()[name]) if name in registry else None


def source_of(module: str) -> Source | None:
    """Where what a module defines comes from; None: it is ours."""
    if is_ours(module):
        return None
    if module.startswith(PREFIX):
        return Source("--plugin", getattr(sys.modules.get(module), GIVEN, f"{module.removeprefix(PREFIX)}.py"))
    top = module.partition(".")[0]
    for group in REGISTRIES:
        for entry in importlib.metadata.entry_points(group=group):
            if entry.module.partition(".")[0] == top and entry.dist is not None:
                return Source("package", entry.dist.name)
    return Source("module", module)
