"""Samplers and pruners by name: those of this package and of plugins, and factories of the user's. Any of Optuna's
will do."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler

from blockforge.errors import PluginError, SearchError, did_you_mean
from blockforge.plugins import Registry, Source
from blockforge.search.registry import user_code
from blockforge.search.registry.describe import describe
from blockforge.search.registry.options import call_with_options, read_options
from blockforge.search.samplers.base import ProposalSampler

SAMPLERS = {
    "tpe": "tpe:BoundedTPE",
    "random": "independent:Uniform",
    "nsga2": "evolution:SteadyStateNSGAII",
    "evolution": "evolution:RegularizedEvolution",
    "brute": "brute:Enumeration",
}
PLUGGED: Registry[Callable[..., BaseSampler]] = Registry("blockforge.samplers", "sampler")
"""Those of plugins: what makes a sampler, with the options of its text as parameters."""
_KINDS: dict[str, type[Any]] = {"sampler": BaseSampler, "pruner": BasePruner}


T = TypeVar("T", bound=Callable[..., BaseSampler])


def sampler(name: str) -> Callable[[T], T]:
    """Register what makes a sampler."""

    def register(factory: T) -> T:
        if name in SAMPLERS:
            raise PluginError(f"two samplers are named '{name}': blockforge's own and {factory.__module__}")
        PLUGGED.add(name, factory, factory.__module__)
        return factory

    return register


def make_sampler(sampler: Any, seed: int, stream: int = 0) -> BaseSampler:
    """A sampler from its text, or as it was handed over.

    Args:
        stream: tells the workers of one seed apart.
    Raises: SearchError if there is none, or an option is wrong.
    """
    check_sampler(sampler)
    if isinstance(sampler, BaseSampler):
        return sampler
    name, _, rest = sampler.strip().partition(":")
    if (cls := _packaged(name)) is not None:
        taken = {key: p for key, p in inspect.signature(cls).parameters.items() if key != "stream"}
        made: ProposalSampler = call_with_options(name, cls, taken, rest, seed)
        made.stream = stream
        return made
    if (factory := PLUGGED.get(name)) is not None:
        plugged = call_with_options(name, factory, inspect.signature(factory).parameters, rest, seed)
        return _checked_kind(plugged, name, "sampler")
    return _of_user(sampler, "sampler", seed)


def make_pruner(pruner: Any) -> BasePruner | None:
    """A pruner from its text, or as it was handed over; None: none. Raises: SearchError."""
    check_pruner(pruner)
    return pruner if pruner is None or isinstance(pruner, BasePruner) else _of_user(pruner, "pruner", None)


def check_sampler(sampler: Any) -> None:
    """Raise SearchError for a sampler that does not exist, as far as that can be said before its code is run."""
    known = [*SAMPLERS, *PLUGGED]
    if isinstance(sampler, str) and sampler.strip().partition(":")[0] in known:
        return
    _check(sampler, "sampler", did_you_mean(str(sampler), known, "samplers"))


def source_of(sampler: Any) -> Source | None:
    """The plugin that a sampler's text names, if it is of one."""
    return PLUGGED.source(sampler.strip().partition(":")[0]) if isinstance(sampler, str) else None


def check_pruner(pruner: Any) -> None:
    """The same for a pruner."""
    if pruner is not None:
        _check(pruner, "pruner", "optuna.pruners:MedianPruner")


def is_handed_over(thing: Any) -> bool:
    """Whether a sampler or pruner is an object, which no other process has, or was one."""
    return thing is not None and (not isinstance(thing, str) or thing.endswith(")"))


def check_shareable(thing: Any, kind: str) -> None:
    """Raise SearchError for an object, where workers in processes of their own need it."""
    if is_handed_over(thing):
        raise SearchError(
            f"workers cannot make the {kind} {describe(thing)} again\n"
            f"  hint: write a function that returns it, and name it as module:function or file.py:function\n"
            "  an object will do for workers=1 in this process, where it is handed over again to go on"
        )


def goes_through_all(sampler: BaseSampler) -> bool:
    """Whether a sampler counts what it has proposed, so that no proposal may be replaced by another."""
    from blockforge.search.samplers.brute import Enumeration

    return isinstance(sampler, Enumeration | BruteForceSampler | GridSampler)


def _packaged(name: str) -> type[ProposalSampler] | None:
    if name not in SAMPLERS:
        return None
    module, _, cls = SAMPLERS[name].partition(":")
    return getattr(importlib.import_module(f"blockforge.search.samplers.{module}"), cls)


def _check(thing: Any, kind: str, hint: str) -> None:
    if isinstance(thing, _KINDS[kind]):
        return
    if not isinstance(thing, str):
        raise SearchError(f"a {kind} is a name or a {_KINDS[kind].__name__} of Optuna's, not {describe(thing)}")
    if is_handed_over(thing):
        text = f"the {kind} of this study, {thing}, was handed over as an object, which is gone"
        raise SearchError(f"{text}\n  hint: hand it over again: search(..., {kind}=...)")
    if user_code.reference(thing) is None:
        raise SearchError(f"no {kind} named '{thing}'\n  hint: {hint}; or your own, as module:factory")


def _of_user(text: str, kind: str, seed: int | None) -> Any:
    """What a class or a function of the user's makes, with the options and, if it takes one, the search's seed."""
    ref = user_code.reference(text)
    assert ref is not None
    code = user_code.imported(ref, kind)
    if callable(code):
        options = read_options(ref.text, ref.options)
        if seed is not None and "seed" in inspect.signature(code).parameters:
            options.setdefault("seed", seed)
        code = user_code.made(ref, code, options)
    return _checked_kind(code, ref.text, kind)


def _checked_kind(made: Any, name: str, kind: str) -> Any:
    if not isinstance(made, _KINDS[kind]):
        raise SearchError(f"{name} gives {type(made).__name__}, and no {_KINDS[kind].__name__} of Optuna's")
    return made
