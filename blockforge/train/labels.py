"""Labels, and what is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

MOST_CLASSES = 1_000_000
"""More than any data set has: a label beyond is a mistake."""


def wrong_labels(labels: Iterable[Any], classes: int) -> list[tuple[int, str]]:
    """The rows whose label is no class, and why: missing, below 0, too high, or no whole number."""
    values = labels if isinstance(labels, np.ndarray) else np.asarray(list(labels), dtype=object)
    if values.dtype.kind in "iu":
        rows = np.flatnonzero((values < 0) | (values >= classes)).tolist()
        return [(row, str(not_a_class(int(values[row]), classes))) for row in rows]
    reasons = ((row, not_a_class(value, classes)) for row, value in enumerate(values.tolist()))
    return [(row, reason) for row, reason in reasons if reason is not None]


def not_a_class(label: Any, classes: int) -> str | None:
    """Why a label is no class, in words; None: it is one."""
    if not isinstance(label, int | np.integer) or isinstance(label, bool):
        return "no label" if label is None else f"the label {label!r:.80} is no whole number"
    if label < 0:
        return f"the label {label} is no class; some splits come without labels"
    return f"the label {label} of {classes} classes, which count from 0" if label >= classes else None
