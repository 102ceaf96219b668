"""What tells things apart that were handed over as objects."""

from __future__ import annotations

import dataclasses
from typing import Any


def describe(value: Any) -> Any:
    """The text of an objective, a sampler or a pruner; values of different objectives are never compared."""
    if value is None or isinstance(value, str):
        return value
    if (text := getattr(value, "text", None)) is not None:  # a measure
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    kind = type(value)
    module = getattr(value, "__module__", kind.__module__)
    return f"{module}:{getattr(value, '__qualname__', kind.__qualname__)}"
