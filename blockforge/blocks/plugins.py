"""Blocks of others: loading the files that a user names, and saying in what is saved where its blocks come from.

A spec that is written somewhere names the plugin that it needs in a comment, by which the error names it where it is
missing. Reading a spec never loads one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from blockforge.errors import BlockforgeError, Locs, Path, shown_path

_PREFIX = "blockforge_plugin_"
_GIVEN = "__blockforge_given__"
_COMMENT = re.compile(r"# needs (--plugin|package|module) ([^\n]{1,200}) for ([\w, -]{1,2000})")
_HOW = {
    "--plugin": "blockforge ... --plugin {}, or in Python blockforge.blocks.registry.load_plugin",
    "package": "pip install {}",
    "module": "import {} first",
}


class PluginError(BlockforgeError):
    """A plugin that cannot be used, or that is missing."""


class Source(NamedTuple):
    """Where a block comes from: `--plugin` and a file as it was given, a `package`, or a `module` that was imported."""

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


def load_plugin(file: str | os.PathLike[str]) -> None:
    """Run a plugin file that the user named, so that its blocks are registered.

    Raises: PluginError if the file cannot be read or fails.
    """
    from blockforge.blocks.registry import load_blocks

    path = os.fspath(file)
    if not os.path.isfile(path):
        raise PluginError(f"plugin file not found: {shown_path(path)}")
    name = _PREFIX + os.path.splitext(os.path.basename(path))[0]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise PluginError(f"not a Python file: {shown_path(path)}")
    other = getattr(sys.modules.get(name), "__file__", None)
    if other is not None and not _same_file(other, path):
        raise PluginError(f"two plugin files are named {os.path.basename(path)}\n  hint: rename one of them")
    load_blocks()
    module = importlib.util.module_from_spec(found)
    setattr(module, _GIVEN, path)
    sys.modules[name] = module  # so that models with its blocks can be pickled
    try:
        found.loader.exec_module(module)
    except BlockforgeError:
        raise
    except Exception as e:
        raise PluginError(f"plugin {shown_path(path)} failed: {type(e).__name__}: {e}") from e


def _same_file(a: str, b: str) -> bool:
    return os.path.exists(a) and os.path.samefile(a, b)


def plugins() -> list[str]:
    """The plugin files whose blocks are registered, by which other processes load them too."""
    from blockforge.blocks.registry import registered

    modules = (sys.modules.get(cls.__module__) for cls in registered().values())
    files = (m.__file__ for m in modules if m is not None and m.__name__.startswith(_PREFIX))
    return list(dict.fromkeys(os.path.abspath(file) for file in files if file is not None))


def load_plugins(files: Iterable[str]) -> None:
    """Load those files that are not loaded yet, as another process names its `plugins`. Raises: PluginError."""
    for file in files:
        if os.path.abspath(file) not in plugins():
            load_plugin(file)


# --- what a spec needs


def needed(tree: Any) -> dict[Source, list[str]]:
    """Where the blocks of a spec's plain tree come from that are not blockforge's own."""
    from blockforge.blocks.registry import registered

    named, found = set(_texts(tree)), dict[Source, list[str]]()
    for name, cls in sorted(registered().items()):
        if name in named and (source := _source(cls.__module__)) is not None:
            found.setdefault(source, []).append(name)
    return found


def sources() -> set[Source]:
    """Where the registered blocks come from."""
    from blockforge.blocks.registry import registered

    return {s for cls in registered().values() if (s := _source(cls.__module__)) is not None}


def comments(tree: Any) -> str:
    """`# needs --plugin average.py for average_pool`, a line for each plugin of a spec's tree."""
    return "".join(f"# needs {s.kind} {shown_path(s.name)} for {', '.join(b)}\n" for s, b in needed(tree).items())


def said(message: str, locs: Locs, path: Path) -> str | None:
    """The hint for a block that is not known, where the file that names it says what it is of."""
    place = locs.value(path)
    for line in place.source.lines[:20] if place is not None else ():
        if (found := _COMMENT.fullmatch(line)) and any(f"'{name}'" in message for name in found[3].split(", ")):
            return f"the file says where it is from: {Source(found[1], found[2]).how()}"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(child)


def _source(module: str) -> Source | None:
    top = module.partition(".")[0]
    if top == "blockforge":
        return None
    if module.startswith(_PREFIX):
        return Source("--plugin", getattr(sys.modules.get(module), _GIVEN, f"{module.removeprefix(_PREFIX)}.py"))
    for entry in importlib.metadata.entry_points(group="blockforge.blocks"):
        if entry.module.partition(".")[0] == top and entry.dist is not None:
            return Source("package", entry.dist.name)
    return Source("module", module)
