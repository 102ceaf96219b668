"""Samplers and pruners by name: those of this package and of plugins, and factories of the user's. Any of Optuna's
will do."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler

from blockforge.errors import SearchError, did_you_mean
from blockforge.provenance import Source
from blockforge.search.registry import user_code
from blockforge.search.registry.describe import describe
from blockforge.search.registry.factories import Factories
from blockforge.search.registry.options import call_with_options, read_options
from blockforge.search.samplers import algorithms
from blockforge.search.samplers.base import ProposalSampler

SAMPLERS = tuple(module.name for module in pkgutil.iter_modules(algorithms.__path__))
"""Ours, by their files: none is imported before it is wanted."""
_KINDS: dict[str, type[Any]] = {"sampler": BaseSampler, "pruner": BasePruner}


def _class(name: str) -> type[ProposalSampler]:
    """The class in the file of a sampler."""
    module = importlib.import_module(f"{algorithms.__name__}.{name}")
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    (cls,) = (value for value in own if isinstance(value, type) and issubclass(value, ProposalSampler))
    return cls


_OURS = {name: functools.partial(_class, name) for name in SAMPLERS}
FACTORIES = Factories("blockforge.samplers", "sampler", lambda: _OURS)
sampler = FACTORIES.register
"""Registers what makes a sampler, with the options of its text as parameters: `@sampler("name")`."""


def make_sampler(sampler: Any, seed: int, stream: int = 0) -> BaseSampler:
    """A sampler from its text, or as it was handed over.

    Args:
        stream: tells the workers of one seed apart.
    Raises: SearchError if there is none, or an option is wrong.
    """
    check_sampler(sampler)
    if isinstance(sampler, BaseSampler):
        return sampler
    made: BaseSampler = _named(sampler, seed) if FACTORIES.named_in(sampler) else _of_user(sampler, "sampler", seed)
    if isinstance(made, ProposalSampler):  # also one of a plugin or a user: else all workers proposed the same
        made.stream = stream
    return made


def _named(text: str, seed: int) -> Any:
    """What a sampler's name makes, of this package or of a plugin, with its options."""
    name, _, rest = (part.strip() for part in text.partition(":"))
    factory = FACTORIES.factory(name)
    told_apart = isinstance(factory, type) and issubclass(factory, ProposalSampler)
    parameters = inspect.signature(factory).parameters
    taken = {key: p for key, p in parameters.items() if not (told_apart and key == "stream")}
    return _checked_kind(call_with_options(name, factory, taken, rest, seed), name, "sampler")


def make_pruner(pruner: Any) -> BasePruner | None:
    """A pruner from its text, or as it was handed over; None: none. Raises: SearchError."""
    check_pruner(pruner)
    return pruner if pruner is None or isinstance(pruner, BasePruner) else _of_user(pruner, "pruner", None)


def check_sampler(sampler: Any) -> None:
    """Raise SearchError for a sampler that does not exist, as far as that can be said before its code is run."""
    if isinstance(sampler, str) and FACTORIES.named_in(sampler) is not None:
        return
    _check(sampler, "sampler", did_you_mean(str(sampler), FACTORIES.names(), "samplers"))


def source_of(sampler: Any) -> Source | None:
    """The plugin that a sampler's text names, if it is of one."""
    return FACTORIES.source(sampler) if isinstance(sampler, str) else None


def check_pruner(pruner: Any) -> None:
    """The same for a pruner."""
    if pruner is not None:
        _check(pruner, "pruner", "optuna.pruners:MedianPruner")


def is_handed_over(thing: Any) -> bool:
    """Whether a sampler or pruner is an object, which no other process has, or was one."""
    return thing is not None and (not isinstance(thing, str) or thing.endswith(")"))


def is_of_this_process(thing: Any) -> bool:
    """Whether no other process can make a sampler or pruner: an object, or what its main module alone holds."""
    return is_handed_over(thing) or (isinstance(thing, str) and user_code.is_of_main(thing))


def check_shareable(thing: Any, kind: str) -> None:
    """Raise SearchError for an object, where workers in processes of their own need it."""
    if is_of_this_process(thing):
        raise SearchError(
            f"workers cannot make the {kind} {describe(thing)} again\n"
            f"  hint: write a function that returns it, and name it as module:function or file.py:function\n"
            "  an object will do for workers=1 in this process, where it is handed over again to go on"
        )


def goes_through_all(sampler: BaseSampler) -> bool:
    """Whether a sampler counts what it has proposed, so that no proposal may be replaced by another."""
    from blockforge.search.samplers.algorithms.brute import Enumeration

    return isinstance(sampler, Enumeration | BruteForceSampler | GridSampler)


def _check(thing: Any, kind: str, hint: str) -> None:
    if isinstance(thing, _KINDS[kind]):
        return
    if not isinstance(thing, str):
        hint = ""
        if isinstance(thing, type) and issubclass(thing, _KINDS[kind]):
            hint = f"\n  hint: one that is made: {kind}={thing.__name__}(...)"
        text = f"a {kind} is a name or a {_KINDS[kind].__name__} of Optuna's, not {describe(thing)}"
        raise SearchError(f"{text}{hint}")
    if is_handed_over(thing):
        text = f"the {kind} of this study, {thing}, was handed over as an object, which is gone"
        raise SearchError(f"{text}\n  hint: hand it over again: search(..., {kind}=...)")
    if user_code.reference(thing) is None:
        raise SearchError(f"no {kind} named '{thing}'\n  hint: {hint}; or your own, as module:factory")


def _of_user(text: str, kind: str, seed: int | None) -> Any:
    """What a class or a function of the user's makes, with the options and, if it takes one, the search's seed."""
    ref = user_code.reference(text)
    assert ref is not None
    code, options = user_code.imported(ref, kind), read_options(ref.text, ref.options)
    if not callable(code):
        if options:
            hint = "a class or a function takes options"
            raise SearchError(f"{ref.text} is an object, and takes no option {', '.join(options)}\n  hint: {hint}")
    else:
        if seed is not None and "seed" in inspect.signature(code).parameters:
            options.setdefault("seed", seed)
        code = user_code.made(ref, code, options)
    return _checked_kind(code, ref.text, kind)


def _checked_kind(made: Any, name: str, kind: str) -> Any:
    if not isinstance(made, _KINDS[kind]):
        raise SearchError(f"{name} gives {type(made).__name__}, and no {_KINDS[kind].__name__} of Optuna's")
    return made
