"""Python data -> the plain tree of a spec: dicts, lists and scalars, within the bounds that a text has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blockforge.errors import Path, Report
from blockforge.spec.yaml.tree import MAX_DEPTH, MAX_NODES


def plain_data(value: Any, report: Report) -> Any:
    """A copy of `value`, tuples as lists. Reports what has no place in a spec; raises if too large."""
    return _Copier(report).copy(value, ())


class _Copier:
    """Data may hold itself, so it is bounded while it is copied."""

    def __init__(self, report: Report) -> None:
        self.report, self.room = report, MAX_NODES

    def copy(self, value: Any, path: Path) -> Any:
        self.room -= 1
        if len(path) > MAX_DEPTH or self.room < 0:
            text = f"more than {MAX_NODES} values, or nested more than {MAX_DEPTH} deep"
            self.report.error("limit", text, path[:2])
            self.report.close()
        if isinstance(value, Mapping):
            return {self._key(k, path): self.copy(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(v, (*path, i)) for i, v in enumerate(value)]
        if value is not None and not isinstance(value, str | int | float | bool):
            self.report.error("value", f"a {type(value).__name__} has no place in a spec", path)
        elif isinstance(value, float) and not math.isfinite(value):
            self.report.error("number", f"{value} is not a finite number", path)
        return value

    def _key(self, key: Any, path: Path) -> Any:
        if not isinstance(key, str | int) or isinstance(key, bool):
            self.report.error("key", f"a key must be text or an integer, not {key!r}", path)
        return key
