"""What tells things apart that were handed over as objects."""

from __future__ import annotations

import dataclasses
from itertools import takewhile
from typing import Any


def describe(value: Any) -> Any:
    """The text of an objective, a sampler or a pruner; values of different objectives are never compared."""
    if value is None or isinstance(value, str):
        return value
    if (text := getattr(value, "text", None)) is not None:  # a measure
        return text
    kind = type(value)
    if {"BaseSampler", "BasePruner"} & {base.__name__ for base in kind.__mro__}:
        module = ".".join(takewhile(lambda part: not part.startswith("_"), kind.__module__.split(".")))
        return f"{module}:{kind.__qualname__} (an object)"  # no text that could make it again with its settings
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    module = getattr(value, "__module__", kind.__module__)
    return f"{module}:{getattr(value, '__qualname__', kind.__qualname__)}"
