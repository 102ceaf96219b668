"""Code of the user's by its name: `module:function` or `file.py:function`, each with `:key=value,...` behind it.

Nothing here runs unless a search or a worker asks for it: reading a study imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from blockforge.errors import SearchError, did_you_mean
from blockforge.search.registry.carried import found

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


def is_of_main(text: str) -> bool:
    """Whether a text names what a notebook or a script holds: no other process has it."""
    ref = reference(text)
    return ref is not None and ref.module == "__main__"


def imported(ref: Reference, kind: str) -> Any:
    """What a reference names.

    Args:
        kind: what it is to be, for messages: `objective`.
    Raises: SearchError if it cannot be imported.
    """
    try:
        value: Any = _module(ref.module, kind)
        for part in ref.name.split("."):
            value = getattr(value, part)
    except SearchError:
        raise
    except (Exception, SystemExit) as e:  # whatever the user's module raises while it is imported
        if ref.module == "__main__":
            hint = "write it at the top of a module and name it as module:function, or as file.py:function"
            text = f"the {kind} {ref.text} is of a notebook or a script, and this process runs another one"
            raise SearchError(f"{text}\n  hint: {hint}") from e
        raised = "" if isinstance(e, ImportError | AttributeError) else f"{type(e).__name__}: "
        raise SearchError(f"the {kind} {ref.text} cannot be imported: {raised}{e}") from e
    return value


def _module(name: str, kind: str) -> ModuleType:
    """A module by its name, or a file. The folder it lies in (that the user works in) is looked through first, now and
    later, so that it finds the modules beside it as a script does."""
    if not name.endswith(".py"):
        _look_in(os.getcwd())
        return importlib.import_module(name)
    path = found(name).resolve()
    if not path.is_file():
        article = "an" if kind[0] in "aeiou" else "a"
        hint = f"the path of {article} {kind} begins at the folder you are in"
        raise SearchError(f"there is no file {name}\n  hint: {hint}")
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


def check_options(
    ref: Reference,
    code: Callable[..., Any],
    options: Mapping[str, Any],
    leading: int = 0,
    apart: Sequence[str] = (),
) -> None:
    """Raise SearchError where a callable does not take the options, or needs others.

    Args:
        leading: how many of its first parameters are no options.
        apart: names of others that are none.
    """
    try:
        taken = dict(inspect.signature(code).parameters)
    except (TypeError, ValueError):  # of some built-in callables nothing is known
        return
    for name in {*list(taken)[:leading], *(taken.keys() & set(apart))}:
        del taken[name]
    named = {n: p for n, p in taken.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind == p.VAR_KEYWORD for p in taken.values())
    for key in options:
        if key not in named and not anything:
            hint = did_you_mean(key, named, "options") if named else "it takes none"
            raise SearchError(f"'{ref.text}' has no option '{key}'\n  hint: {hint}")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in options:
            raise SearchError(f"'{ref.text}' needs the option '{key}'\n  hint: {ref.text}:{key}=...")


def made(ref: Reference, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """What a class or a factory of the user's makes. Raises: SearchError if it raises, or does not take the options."""
    check_options(ref, factory, options)
    try:
        return factory(**options)
    except (Exception, SystemExit) as e:
        raise SearchError(f"{ref.text} cannot be made: {type(e).__name__}: {e}") from e


def origin(code: Callable[..., Any]) -> str | None:
    """The file that code is in."""
    code = inspect.unwrap(code)
    try:
        return inspect.getsourcefile(code if inspect.isroutine(code) or isinstance(code, type) else type(code))
    except TypeError:
        return None
