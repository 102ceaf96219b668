"""Samplers by name: those of this package."""

from __future__ import annotations

from typing import Any

from blockforge.errors import SearchError, did_you_mean

SAMPLERS = ("tpe", "random", "nsga2", "evolution", "brute")


def check_sampler(sampler: Any) -> None:
    """Raise SearchError for a sampler that does not exist."""
    if sampler not in SAMPLERS:
        raise SearchError(f"no sampler named '{sampler}'\n  hint: {did_you_mean(str(sampler), SAMPLERS, 'samplers')}")
