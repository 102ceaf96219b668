"""Objectives by name: those of this package and of plugins, and code of the user's. See `measure` for what an
objective is.

    @objective("depth")
    class Depth:
        def __call__(self, arch): return arch.depth

A plugin's is a class, or a function that makes one, whose parameters are the options of its text.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from blockforge.compiler import Architecture
from blockforge.errors import SearchError, did_you_mean
from blockforge.provenance import Source
from blockforge.search.objectives import scores
from blockforge.search.objectives.costs import COSTS, Cost
from blockforge.search.registry import user_code
from blockforge.search.registry.factories import Factories, Factory, name_in
from blockforge.search.registry.options import call_with_options, read_options


def _ours() -> dict[str, Callable[[], Factory]]:
    """Those of this package, in `scores` one file each: nothing is imported before it is wanted."""
    known: dict[str, Callable[[], Factory]] = {c: functools.partial(functools.partial, Cost, c) for c in COSTS}
    for module in pkgutil.iter_modules(scores.__path__):
        known[module.name] = functools.partial(_factory, module.name)
    return known


FACTORIES = Factories("blockforge.objectives", "objective", _ours)
objective = FACTORIES.register
"""Registers what makes an objective, with the options of its text as parameters: `@objective("name")`."""


def make(text: str, seed: int = 0) -> Callable[[Architecture], Any]:
    """The objective that a text names. Raises: SearchError if there is none, or an option is wrong."""
    if (name := FACTORIES.named_in(text)) is not None:
        factory, rest = FACTORIES.factory(name), text.strip().partition(":")[2]
        return call_with_options(name, factory, inspect.signature(factory).parameters, rest, seed)
    if (ref := user_code.reference(text)) is not None:
        return _of_user(ref)
    known = did_you_mean(name_in(text), FACTORIES.names(), "objectives")
    hint = f"{known}; or your own, as module:function or file.py:function"
    raise SearchError(f"no objective named '{name_in(text)}'\n  hint: {hint}")


def check_name(objective: Any) -> None:
    """Raise SearchError for a text that names no objective, as far as that can be said before its code is run."""
    if isinstance(objective, str) and not is_packaged(objective) and user_code.reference(objective) is None:
        make(objective)


def is_packaged(text: str) -> bool:
    """Whether a text names an objective of this package or of a plugin, and no code of a user's."""
    return FACTORIES.named_in(text) is not None


def source_of(text: str) -> Source | None:
    """The plugin that a text's objective comes from, if it is of one."""
    return FACTORIES.source(text)


def _factory(name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"{scores.__name__}.{name}"), name)


def _of_user(ref: user_code.Reference) -> Callable[..., Any]:
    """A function is called with the architecture, and with the options as keywords; a class is made with the options,
    and what it makes is called."""
    code, options = user_code.imported(ref, "objective"), read_options(ref.text, ref.options)
    if not callable(code):
        raise SearchError(f"{ref.text} is no function\n  hint: name a function from Architecture to a number")
    if isinstance(code, type):
        objective = user_code.made(ref, code, options)
        if not callable(objective):
            raise SearchError(f"a {ref.text} cannot be called\n  hint: give it __call__(self, arch)")
        return objective
    user_code.check_options(ref, code, options, leading=1, apart=("trial", "report"))
    return _with(code, options) if options else code


def _with(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """The function with options filled in; what it says of itself (its name, direction, cost) stays."""

    @functools.wraps(function)
    def measured(arch: Any, **of_trial: Any) -> Any:
        return function(arch, **options, **of_trial)

    return measured
