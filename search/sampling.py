"""Holes -> Optuna: samplers, and the `ask` that the compiler calls for each hole it meets."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from blockforge.errors import did_you_mean
from blockforge.search.errors import SearchError
from blockforge.spec import Hole

SamplerName = Literal["tpe", "random"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)


def make_sampler(name: str, seed: int, ordinal: int) -> BaseSampler:
    """The sampler for the proposal number `ordinal` of a search.

    Each proposal has a sampler of its own, seeded by its number: a search that was stopped and goes on then
    proposes what it would have proposed without the stop. A sampler keeps nothing but a cache in between.
    """
    own = int(np.random.SeedSequence([seed, ordinal]).generate_state(1)[0])
    if name == "random":
        return RandomSampler(seed=own)
    with warnings.catch_warnings():
        # Spaces with choices inside choices need `group`, which has been experimental since Optuna 2.8.
        message = "Argument ``group`` is an experimental"
        warnings.filterwarnings("ignore", message, category=optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=own)


def check_sampler(name: str) -> None:
    """Raise SearchError for a sampler that does not exist."""
    if name not in SAMPLERS:
        raise SearchError(f"no sampler named '{name}'\n  hint: {did_you_mean(name, SAMPLERS, 'samplers')}")


def asker(trial: optuna.Trial, answers: dict[str, Any]) -> Callable[[Hole], Any]:
    """An `ask` for the compiler: suggests a value for each hole under its name, and notes it in `answers`."""

    def ask(hole: Hole) -> Any:
        answers[hole.name] = _suggest(trial, hole)
        return answers[hole.name]

    return ask


def _suggest(trial: optuna.Trial, hole: Hole) -> Any:
    if hole.kind == "int":
        return trial.suggest_int(hole.name, int(hole.low), int(hole.high), step=hole.step)
    if hole.kind in ("float", "log"):
        return trial.suggest_float(hole.name, hole.low, hole.high, log=hole.kind == "log")
    return label_of(hole, trial.suggest_categorical(hole.name, _scalars(hole)))


def label_of(hole: Hole, value: Any) -> Any:
    """What the compiler calls the value that Optuna keeps for `hole`."""
    return hole.labels[_scalars(hole).index(value)] if hole.kind == "choice" else value


def _scalars(hole: Hole) -> tuple[Any, ...]:
    """The labels as Optuna sees them. By ==, which Optuna uses, 1 and true are equal: such go by text."""
    distinct = len(set(hole.labels)) == len(hole.labels)
    return hole.labels if distinct else tuple(repr(label) for label in hole.labels)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """No line on the terminal for each study and trial; the caller's own setting comes back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
