"""Objectives that are code of the user's: `module:function`, `file.py:function`, each with `:key=value,...` behind it.

A function is called with the architecture, and with the options as keywords; a class is made with the options, and
what it makes is called. Nothing here runs unless a search or a worker asks for it: reading a study imports nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from blockforge.errors import SearchError, did_you_mean

_TEXT = re.compile(r"(?P<module>.+?\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)(?::(?P<options>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """What a text names, before anything is imported.

    Attributes:
        module: by its name, or a file that ends in `.py`.
    """

    module: str
    name: str
    options: str

    @property
    def text(self) -> str:
        """It, without options."""
        return f"{self.module}:{self.name}"


def reference(text: str) -> Reference | None:
    """What a text names; None if it is not of that form."""
    match = _TEXT.fullmatch(text.strip())
    return Reference(match["module"], match["name"], match["options"] or "") if match else None


def load(ref: Reference, options: Mapping[str, Any]) -> Callable[..., Any]:
    """The objective that a reference names.

    Raises: SearchError if it cannot be imported, cannot be called, or does not take the options.
    """
    try:
        found: Any = _module(ref.module)
        for part in ref.name.split("."):
            found = getattr(found, part)
    except SearchError:
        raise
    except (Exception, SystemExit) as e:  # whatever the user's module raises while it is imported
        kind = "" if isinstance(e, ImportError | AttributeError) else f"{type(e).__name__}: "
        raise SearchError(f"the objective {ref.text} cannot be imported: {kind}{e}") from e
    if not callable(found):
        raise SearchError(f"{ref.text} is no function\n  hint: name a function from Architecture to a number")
    _check_options(ref, found, options)
    if isinstance(found, type):
        try:
            made = found(**options)
        except Exception as e:
            raise SearchError(f"{ref.text} cannot be made: {type(e).__name__}: {e}") from e
        if not callable(made):
            raise SearchError(f"a {ref.text} cannot be called\n  hint: give it __call__(self, arch)")
        return made
    return _with(found, options) if options else found


def _module(name: str) -> ModuleType:
    """A module by its name, or a file. The folder it lies in (that the user works in) is looked through first, now and
    later, so that it finds the modules beside it as a script does."""
    if not name.endswith(".py"):
        _look_in(os.getcwd())
        return importlib.import_module(name)
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise SearchError(f"there is no file {name}\n  hint: the path of an objective begins at the folder you are in")
    _look_in(str(path.parent))
    same = (m for n, m in sys.modules.items() if n != "__main__" and (getattr(m, "__file__", None) or "") == str(path))
    if (known := next(same, None)) is not None:
        return known
    own = path.stem if path.stem not in sys.modules else f"{path.stem}_{abs(hash(str(path))):x}"
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[own] = importlib.util.module_from_spec(spec)  # registered, so that its classes pickle
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[own]
        raise
    return module


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _check_options(ref: Reference, found: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        taken = dict(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # of some built-in callables nothing is known
        return
    if not isinstance(found, type) and taken:
        del taken[next(iter(taken))]  # the architecture
    named = {n: p for n, p in taken.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind == p.VAR_KEYWORD for p in taken.values())
    for key in options:
        if key not in named and not anything:
            hint = did_you_mean(key, named, "options") if named else "it takes none"
            raise SearchError(f"'{ref.text}' has no option '{key}'\n  hint: {hint}")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in options:
            raise SearchError(f"'{ref.text}' needs the option '{key}'\n  hint: {ref.text}:{key}=...")


def _with(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """The function with options filled in; what it says of itself (its name, direction, cost) stays."""

    @functools.wraps(function)
    def measured(arch: Any) -> Any:
        return function(arch, **options)

    return measured


def origin(objective: Callable[..., Any]) -> str | None:
    """The file that an objective's code is in."""
    code = inspect.unwrap(objective)
    try:
        return inspect.getsourcefile(code if inspect.isroutine(code) or isinstance(code, type) else type(code))
    except TypeError:
        return None
