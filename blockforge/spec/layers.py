"""The `layers` of a stage against its depth and the blocks there are. Errors point into the pattern."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from blockforge.errors import Path, Report, did_you_mean
from blockforge.spec import patterns
from blockforge.spec.model import StageSpec
from blockforge.spec.reporting import NOWHERE, Origins, inside, report_at
from blockforge.spec.scope import FailedError
from blockforge.spec.values import Hole


def write_out(
    stage: StageSpec, path: Path, blocks: Collection[str], origins: Origins, report: Report
) -> tuple[str, ...]:
    """The block of each layer. Raises: FailedError."""
    if not check_names(stage.layers, path, blocks, origins, report):
        raise FailedError
    try:
        return patterns.expand(stage.layers, stage.depth)
    except patterns.PatternError as e:
        _report(e, stage.layers, path, origins, report)
        raise FailedError from None


def check_names(pattern: str, path: Path, blocks: Collection[str], origins: Origins, report: Report) -> bool:
    """Whether `pattern` can be read and names only blocks that there are; reports what is wrong."""
    try:
        unknown = [(n, c) for n, c in patterns.names(pattern) if n not in blocks]
    except patterns.PatternError as e:
        _report(e, pattern, path, origins, report)
        return False
    first = dict(reversed(unknown))
    for name, column in reversed(first.items()):  # each name once, where it stands first
        within = functools.partial(inside, text=pattern, column=column, length=len(name))
        text, hint = f"there is no block named '{name}'", did_you_mean(name, blocks, what="blocks")
        report_at(report, origins, "unknown-block", text, path, hint=hint, within=within)
    return not unknown


def check_all_options(stages: Any, blocks: Mapping[str, Any], report: Report) -> None:
    """Check every pattern that a stage's hole could become: a search should not meet a mistake late."""
    for i, stage in enumerate(stages):
        layers = stage.get("layers") if isinstance(stage, dict) else None
        for pattern, written in _options(layers, ("stages", i, "layers")):
            if isinstance(pattern, str):
                check_names(pattern, written, blocks, NOWHERE, report)


def _options(value: Any, written: Path) -> Iterator[tuple[Any, Path]]:
    if isinstance(value, Hole):
        for i, option in enumerate(value.options):
            yield from _options(option, (*value.written, "$choice", i))
    else:
        yield value, written


def _report(e: patterns.PatternError, pattern: str, path: Path, origins: Origins, report: Report) -> None:
    within = functools.partial(inside, text=pattern, column=e.column, length=e.length)
    report_at(report, origins, "layers", str(e), path, hint=e.hint, within=within)
