"""Holes as Optuna's parameters: the range of each, and what Optuna keeps for what the compiler calls a value."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from blockforge.search.optuna_private import contains
from blockforge.spec import Hole


def distribution_of(hole: Hole) -> BaseDistribution:
    """The range of a hole, as Optuna states it."""
    if hole.kind == "int":
        return IntDistribution(int(hole.low), int(hole.high), step=hole.step)
    if hole.kind in ("float", "log"):
        return FloatDistribution(hole.low, hole.high, log=hole.kind == "log")
    return CategoricalDistribution(_scalars(hole))


def label_of(hole: Hole, value: Any) -> Any:
    """What the compiler calls the value that Optuna keeps for `hole`."""
    return hole.labels[_scalars(hole).index(value)] if hole.kind == "choice" else value


def scalar_of(hole: Hole, label: Any) -> Any:
    """What Optuna keeps for what the compiler calls `label`."""
    return _scalars(hole)[hole.index(label)] if hole.kind == "choice" else label


def _scalars(hole: Hole) -> tuple[Any, ...]:
    """The labels as Optuna sees them. By ==, which Optuna uses, 1 and true are equal: such go by text."""
    distinct = len(set(hole.labels)) == len(hole.labels)
    return hole.labels if distinct else tuple(repr(label) for label in hole.labels)


def only_value(distribution: BaseDistribution) -> Any:
    """The value of a range that has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return distribution.low


def member(distribution: BaseDistribution, value: Any, name: str) -> Any:
    """A value of a range as the range has it, whatever type it came in: an integer of numpy's is one of Python's.

    Raises: ValueError if it is not in there.
    """
    try:
        if contains(distribution, value):
            whole = isinstance(distribution, IntDistribution) and type(value) is int  # exact at any size
            return value if whole else distribution.to_external_repr(distribution.to_internal_repr(value))
    except (TypeError, ValueError):  # not even of its kind
        pass
    raise ValueError(f"{value!r} is no value of '{name}', {distribution}")


def count(distribution: BaseDistribution) -> int | None:
    """How many values a range has; None: infinitely many."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    return None


def nth(distribution: BaseDistribution, index: int) -> Any:
    """The value number `index` of a range that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, IntDistribution)
    return distribution.low + index * distribution.step


def index_of(distribution: BaseDistribution, value: Any) -> int:
    """The number of a value in a range that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    assert isinstance(distribution, IntDistribution)
    return (int(value) - distribution.low) // distribution.step
