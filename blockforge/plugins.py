"""What others add: registries of named things, filled by installed packages and by files that a user names.

Each kind of thing that can be added (a block, a rule of `connect`, a weight layout, a data source, a recipe, a spec of
the zoo, a search space, ...) has one `Registry`, whose group of entry points is called `blockforge.KIND`. A `--plugin`
file serves all of them. Reading a spec never loads a plugin.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path as FilePath
from typing import Any, TypeVar

from blockforge.errors import BlockforgeError, PluginError, shown_path

T = TypeVar("T")
REGISTRIES: dict[str, Registry[Any]] = {}
"""By group; one that nobody has imported yet is not among them."""
PREFIX = "blockforge_plugin_"
GIVEN = "__blockforge_given__"
_NAME = re.compile(r"[\w.-]+")


def is_ours(module: str) -> bool:
    """Whether a module, by its name, is one of this package."""
    return module.partition(".")[0] == "blockforge"


@functools.cache
def import_all(home: str) -> None:
    """Import a module, and of a package every one in it. Once: walking through a package takes milliseconds."""
    module = importlib.import_module(home)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{home}."):
        importlib.import_module(inner.name)


class Registry(Mapping[str, T]):
    """Things of one kind by name. The first look imports ours, then what installed packages bring.

    Args:
        group: the entry points that bring more: `blockforge.blocks`. Loading one registers its things.
        what: what errors call such a thing.
        homes: our modules that register ours; of a package, every one in it.
        in_specs: whether a spec names these things, so that one that is kept must say where they come from.
    """

    def __init__(self, group: str, what: str, *homes: str, in_specs: bool = False) -> None:
        self.group, self.what, self.homes, self.in_specs = group, what, homes, in_specs
        self.things: dict[str, T] = {}
        self._modules: dict[str, str] = {}
        self._loaded, self._failure = False, ""
        REGISTRIES[group] = self

    def check_name(self, name: object) -> None:
        """Raises: PluginError for what no text can name: also the thing itself, where a decorator was not called."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            said = repr(name) if isinstance(name, str) else f"{getattr(name, '__name__', name)!s}, which is no text"
            hint = "letters, digits, '_', '-' and '.', as in @...(\"mine\")"
            raise PluginError(f"the name of a {self.what} cannot be {said[:80]}\n  hint: {hint}")

    def add(self, name: str, thing: T, module: str) -> None:
        """Register a thing that a module defines. Raises: PluginError if there is another one of that name."""
        if not is_ours(module):
            self.load()  # so that ours were here first
        if (known := self.things.get(name)) is not None and known is not thing:
            raise PluginError(f"two {self.what}s are named '{name}': {self._modules.get(name)} and {module}")
        self.things[name], self._modules[name] = thing, module

    def load(self) -> None:
        """Import whatever registers something, once. Raises: PluginError naming a package that fails, every time."""
        if self._failure:
            raise PluginError(self._failure)
        if self._loaded:
            return
        self._loaded = True  # what is imported meanwhile may look things up
        self._load_ours()
        for entry in importlib.metadata.entry_points(group=self.group):
            try:
                self._take(entry.load())
            except (Exception, SystemExit) as e:
                name = entry.dist.name if entry.dist is not None else entry.name
                reason = str(e) if isinstance(e, BlockforgeError) else f"{type(e).__name__}: {e}"
                self._failure = (
                    f"plugin {name} failed at its entry point '{entry.name} = {entry.value}' ({self.group}): {reason}\n"
                    f"  hint: mend it, or pip uninstall {name}"
                )
                raise PluginError(self._failure) from e

    def _load_ours(self) -> None:
        for home in self.homes:
            import_all(home)

    def _take(self, loaded: Any) -> None:
        """What an entry point names; importing it has registered its things."""

    def may_hold(self, name: str) -> bool:
        """Whether there is a thing of this name, as far as that is known without loading an installed package: one
        that is not loaded yet may bring it."""
        self._load_ours()
        return name in self.things or (not self._loaded and bool(importlib.metadata.entry_points(group=self.group)))

    def modules(self) -> dict[str, str]:
        """Where each thing is defined that is registered so far: nothing is imported."""
        return {name: self._modules[name] for name in self.things}

    def __getitem__(self, name: str) -> T:
        self.load()
        return self.things[name]

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(self.things)

    def __len__(self) -> int:
        self.load()
        return len(self.things)


class YamlFiles(Registry[Traversable]):
    """YAML files by their name without `.yaml`. An entry point names a package that holds some."""

    def _load_ours(self) -> None:
        for home in self.homes:
            self._take(importlib.import_module(home))

    def _take(self, loaded: Any) -> None:
        self._add_all(resources.files(loaded), loaded.__name__)

    def shown(self, name: str) -> str:
        """What messages call a file: of ours its name, of a plugin's its path."""
        return f"{name}.yaml" if is_ours(self._modules.get(name, "blockforge")) else shown_path(str(self[name]))

    def add_folder(self, folder: str | os.PathLike[str], module: str) -> None:
        """Register every YAML file of a folder, as a plugin file does: `SPECS.add_folder(folder, __name__)`."""
        self._add_all(FilePath(folder), module)

    def _add_all(self, folder: Traversable, module: str) -> None:
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".yaml"):
                self.add(file.name.removesuffix(".yaml"), file, module)


# --- code of others, while it runs


@contextmanager
def plugin_code(thing: str, module: str, error: Callable[[str], BlockforgeError] = PluginError) -> Iterator[None]:
    """Tell what code of a plugin raises as a failure of the plugin, with the line in it; errors that it raises on
    purpose (ours) stay, and what code of ours raises is a bug and keeps its traceback, unless it was a plugin's that it
    called.

    Args:
        thing: what runs, as in `rule 'first'`.
        module: where that is defined.
        error: makes what is raised in place of it.
    """
    try:
        yield
    except BlockforgeError:
        raise
    except (Exception, SystemExit) as e:
        if (failed := plugin_failure(e, thing, module)) is None:
            raise
        raise error(failed) from e


def plugin_failure(e: BaseException, thing: str, module: str) -> str | None:
    """What `plugin_code` says of an exception; None: it is of our own making."""
    if is_ours(module):
        others = {m for registry in REGISTRIES.values() for m in registry.modules().values() if not is_ours(m)}
        through = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(e.__traceback__)]
        if (called := next((name for name in reversed(through) if name in others), None)) is None:
            return None
        module = called
    return f"{thing} failed ({_line_of(e, module)}): {type(e).__name__}: {e}"


def _line_of(e: BaseException, module: str) -> str:
    """Where a plugin was when it failed; where it was not even called, where it is from."""
    own = module.partition(".")[0]
    frames = traceback.walk_tb(e.__traceback__)
    lines = [(f.f_code.co_filename, n) for f, n in frames if f.f_globals.get("__name__", "").partition(".")[0] == own]
    return f"{shown_path(lines[-1][0])}:{lines[-1][1]}" if lines else defined_in(module)


def defined_in(module: str) -> str:
    """Where a thing of a plugin is defined, for messages: the file as it was given, or the module."""
    return shown_path(getattr(sys.modules.get(module), GIVEN, module))


# --- files that a user names


def load_plugin(file: str | os.PathLike[str]) -> None:
    """Run a plugin file that the user named, so that its blocks and other things are registered.

    Raises: PluginError if the file cannot be read or fails.
    """
    path = os.fspath(file)
    if not os.path.isfile(path):
        raise PluginError(f"plugin file not found: {shown_path(path)}")
    name = PREFIX + os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"not a Python file: {shown_path(path)}")
    other = getattr(sys.modules.get(name), "__file__", None)
    if other is not None and not _same_file(other, path):
        raise PluginError(f"two plugin files are named {os.path.basename(path)}\n  hint: rename one of them")
    module = importlib.util.module_from_spec(spec)
    setattr(module, GIVEN, path)
    sys.modules[name] = module  # so that models with its blocks can be pickled
    try:
        spec.loader.exec_module(module)
    except BlockforgeError:
        raise
    except (Exception, SystemExit) as e:  # a script's sys.exit is no end of ours
        raise PluginError(f"plugin {shown_path(path)} failed: {type(e).__name__}: {e}") from e


def _same_file(a: str, b: str) -> bool:
    return os.path.exists(a) and os.path.samefile(a, b)


def plugins() -> list[str]:
    """The plugin files of which something is registered, by which other processes load them too."""
    names = (name for registry in REGISTRIES.values() for name in registry.modules().values())
    modules = (sys.modules.get(name) for name in names if name.startswith(PREFIX))
    files = (m.__file__ for m in modules if m is not None)
    return list(dict.fromkeys(os.path.abspath(file) for file in files if file is not None))


def load_plugins(files: Iterable[str]) -> None:
    """Load those files that are not loaded yet, as another process names its `plugins`. Raises: PluginError."""
    for file in files:
        if os.path.abspath(file) not in plugins():
            load_plugin(file)
