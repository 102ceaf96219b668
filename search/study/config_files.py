"""Settings of a search as a YAML file: read for `--config`, with errors that point into it, and written beside a
study, so that the same search can be made again."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockforge.errors import BlockforgeError, Diagnostic, Loc, Locs, Report, SearchError, Source, SpecError
from blockforge.errors import Path as Place
from blockforge.files import write_text
from blockforge.search.budget import as_budget
from blockforge.search.objectives import registry as objectives
from blockforge.search.objectives.measure import is_cut
from blockforge.search.samplers.registry import check_pruner, check_sampler
from blockforge.search.study.config import SearchConfig, from_tree
from blockforge.search.study.folder import CONFIG
from blockforge.spec.emit import dump_yaml
from blockforge.spec.schema_errors import shown
from blockforge.spec.yaml.loader import Document, load_file
from blockforge.spec.yaml.plain_data import plain_data
from blockforge.trackers import check_name
from blockforge.units import parse_duration

_PLACE = re.compile(r"[^\n]*:\d+:\d+: error\[[\w-]+\]: ")
_PLACE_OF_ITS_OWN = re.compile(r"^\w+:\d+:\d+: error\[[\w-]+\]: ")
"""A budget says where in its text it is wrong; here the place is that in the file."""
_MAPPING = "<mapping>"
_WRITTEN_OUT = (_MAPPING, "override", "--set")
ConfigLike = SearchConfig | str | os.PathLike[str] | Mapping[str, Any]


def read_config(source: ConfigLike | None) -> SearchConfig:
    """Settings from a file, from a mapping, or as they are; None: none.

    Raises: SpecError with every error that can be seen before the search, each with its place.
    """
    if source is None or isinstance(source, SearchConfig):
        return source or SearchConfig()
    if not isinstance(source, str | os.PathLike | Mapping):
        raise SearchError(f"settings are a file, a mapping or a SearchConfig, not {shown(source)}")
    document = _from_mapping(source) if isinstance(source, Mapping) else load_file(source)
    report = Report(document.locs)
    if not isinstance(document.tree, dict):
        report.error("config", "settings are a mapping of keys", hint="as in space: tiny")
        report.close()
    config = from_tree(document.tree, report)
    _check_names(config, report)
    report.close()
    return config if isinstance(source, Mapping) else config.written_in(document.locs)


def place_in_file(error: BlockforgeError, own: SearchConfig, below: SearchConfig) -> None:
    """Give an error its place in the file that `below` is of, where what it is about is written there and `own`, which
    goes before it, says nothing of it."""
    path, locs = error.setting, below.locs
    if path is None or locs is None or own.sets(path) or not below.sets(path):
        return
    if isinstance(error, SpecError):
        moved = SpecError(_moved(diagnostic, path, locs) for diagnostic in error.diagnostics)
        error.diagnostics, error.args = moved.diagnostics, moved.args
    elif not _PLACE.match(message := str(error)):
        first, *rest = message.split("\n")
        error.args = ("\n".join([Diagnostic("value", first, path, locs.value(path)).render(), *rest]),)


def _moved(diagnostic: Diagnostic, path: Place, locs: Locs) -> Diagnostic:
    """What was found in a value that stands in a file of settings."""
    if diagnostic.loc is not None and diagnostic.loc.source.name not in _WRITTEN_OUT:
        return diagnostic  # in a file of its own
    inner = diagnostic.path
    if diagnostic.loc is not None and diagnostic.loc.source.name != _MAPPING:
        inner = (diagnostic.loc.source.lines[0].partition("=")[0],)  # of values by path, which path it is
    return dataclasses.replace(diagnostic, path=(*path, *inner), loc=locs.value((*path, *inner)), related=())


def _from_mapping(source: Mapping[str, Any]) -> Document:
    report = Report(Locs({(): (None, Loc(Source(_MAPPING, ()), 1, 1))}))
    tree = plain_data(source, report)
    report.close()
    return Document(tree, report.locs)


def _check_names(config: SearchConfig, report: Report) -> None:
    """What names and quantities say, as far as that needs no code of the user's."""
    checks: list[tuple[Place, Any, Any]] = [
        (("budget", "limits"), as_budget, config.budget.limits),
        (("proposals", "sampler"), check_sampler, config.proposals.sampler),
        (("proposals", "pruner"), check_pruner, config.proposals.pruner),
    ]
    for key in ("objectives", "rungs"):
        names = enumerate(getattr(config.goal, key))
        checks += [(("goal", key, i), objectives.check_name, n) for i, n in names if key != "rungs" or not is_cut(n)]
    for key in ("trial_timeout", "time"):
        if (duration := getattr(config.goal, key)) is not None:
            checks.append((("goal", key), parse_duration, duration))
    checks += [(("log", "trackers", i), check_name, name) for i, name in enumerate(config.log.trackers)]
    for path, check, value in checks:
        try:
            check(value)
        except BlockforgeError as e:
            message, _, hint = str(e).partition("\n  hint: ")
            told = _PLACE_OF_ITS_OWN.sub("", message.partition("\n")[0])
            report.error("value", told, path, hint=hint or None)


def write_config(folder: Path, config: SearchConfig) -> None:
    """Keep the settings of a study beside it; the space is written out in them."""
    write_text(folder / CONFIG, dump_yaml(config.kept()))
