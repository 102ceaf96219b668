"""The `layers` of a stage against its depth and what there is to stand in a layer. Errors point into the pattern."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from blockforge.described import descriptions
from blockforge.errors import Path, Report, did_you_mean
from blockforge.spec import patterns
from blockforge.spec.glossary import Glossary
from blockforge.spec.model import StageSpec
from blockforge.spec.patterns import Name, Pattern
from blockforge.spec.reporting import NOWHERE, Origins, inside, report_at
from blockforge.spec.scope import FailedError
from blockforge.spec.shadows import is_registered
from blockforge.spec.values import Hole


class Known:
    """The names that a pattern may say: the spec's blocks, then definitions, then registered ops."""

    def __init__(self, blocks: Collection[str], glossary: Glossary) -> None:
        self.blocks, self.glossary = blocks, glossary

    def __contains__(self, name: str) -> bool:
        return name in self.blocks or self.glossary.find(name) is not None or is_registered(name)

    def suggestion(self, name: str) -> str:
        if name == "none":
            return "leave the layer out; depth: 0, without layers, is a stage that has none"
        return did_you_mean(name, [*self.blocks, *self.glossary.names()], what="blocks")


def write_out(stage: StageSpec, path: Path, known: Known, origins: Origins, report: Report) -> tuple[Name, ...]:
    """What stands in each layer: names, and of a list the indices of its ops. Raises: FailedError."""
    at = (*path, "layers")
    if stage.layers is None:
        if stage.depth:
            _report_missing("layers", path, origins, report)
            raise FailedError
        return ()
    if not check_names(stage.layers, at, known, origins, report):
        raise FailedError
    written = _pattern(stage.layers)
    try:
        return patterns.expand(written, stage.depth)
    except patterns.EndlessError:
        _report_missing("depth", path, origins, report)
    except patterns.PatternError as e:
        _report(e, stage.layers, at, origins, report)
    raise FailedError


def check_names(layers: str | list[Any], path: Path, known: Known, origins: Origins, report: Report) -> bool:
    """Whether the patterns in `layers` can be read and name only what there is; reports what is wrong."""
    if not isinstance(layers, str):
        items = [(item, (*path, i)) for i, item in enumerate(layers) if isinstance(item, str)]
        wrong = [item for item, at in items if not check_names(item, at, known, origins, report)]
        return not wrong
    try:
        unknown = [(n, c) for n, c in patterns.names(layers) if n not in known]
    except patterns.PatternError as e:
        _report(e, layers, path, origins, report)
        return False
    first = dict(reversed(unknown))
    for name, column in reversed(first.items()):  # each name once, where it stands first
        within = functools.partial(inside, text=layers, column=column, length=len(name))
        text, hint = f"there is no block named '{name}'", known.suggestion(name)
        report_at(report, origins, "unknown-block", text, path, hint=hint, within=within)
    return not unknown


def check_all_options(tree: Mapping[str, Any], report: Report) -> None:
    """Check every pattern that a stage's hole could become: a search should not meet a mistake late."""
    stages, blocks, glossary = tree.get("stages"), tree.get("blocks", {}), _glossary(tree)
    if not isinstance(stages, list) or not isinstance(blocks, dict) or glossary is None:
        return
    known = Known(blocks, glossary)
    for i, stage in enumerate(stages):
        layers = stage.get("layers") if isinstance(stage, dict) else None
        if isinstance(stage, dict):
            _check_keys(stage, ("stages", i), report)
        for pattern, written in _options(layers, ("stages", i, "layers")):
            if isinstance(pattern, str):
                check_names(pattern, written, known, NOWHERE, report)


def _glossary(tree: Mapping[str, Any]) -> Glossary | None:
    """The definitions of a document that nobody has checked; None: they are none, as the schema will say."""
    try:
        glossary = Glossary.of(tree)
    except (AttributeError, TypeError):
        return None
    return glossary if all(isinstance(part.define, dict) for part in glossary.all()) else None


def _options(value: Any, written: Path) -> Iterator[tuple[Any, Path]]:
    if isinstance(value, Hole):
        for i, option in enumerate(value.options):
            yield from _options(option, (*value.written, *value.way_to(i)))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if not isinstance(item, list):  # else a chain
                yield from _options(item, (*written, i))
    else:
        yield value, written


def _pattern(layers: str | list[Any]) -> Pattern:
    return layers if isinstance(layers, str) else patterns.of_list(layers)


def _check_keys(stage: Mapping[str, Any], path: Path, report: Report) -> None:
    """Report that one of `depth` and `layers` is missing, as far as it is written what the other says."""
    layers = stage.get("layers")
    if "layers" not in stage:
        if isinstance(stage.get("depth"), int) and stage["depth"] > 0:
            _report_missing("layers", path, NOWHERE, report)
    elif "depth" not in stage and isinstance(layers, str | list):
        try:
            patterns.expand(_pattern(layers))
        except patterns.EndlessError:
            _report_missing("depth", path, NOWHERE, report)
        except patterns.PatternError:
            pass  # said elsewhere


def _report_missing(key: str, path: Path, origins: Origins, report: Report) -> None:
    hint = f"{key}: {descriptions(StageSpec)[key]}"
    report_at(report, origins, "missing-key", f"the key '{key}' is missing", (*path, key), hint=hint)


def _report(e: patterns.PatternError, layers: str | list[Any], path: Path, origins: Origins, report: Report) -> None:
    within = None
    if isinstance(layers, str):
        within = functools.partial(inside, text=layers, column=e.column, length=e.length)
    report_at(report, origins, "layers", str(e), path, hint=e.hint, within=within)
