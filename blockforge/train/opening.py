"""Data by name: the registry of sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from blockforge.errors import DataError, did_you_mean
from blockforge.plugins import Registry, defined_in, plugin_code
from blockforge.train.cutting import OPTIONS, Cuts, with_parts
from blockforge.train.data import Data, Opened
from blockforge.train.guarded import guarded

Options = Mapping[str, str]
Opener = Callable[[str, Options], Opened]


class DataSource(NamedTuple):
    """What opens data of one kind by name.

    Attributes:
        open: gives the data for what follows the colon, and the options behind `?`.
        form: how a person writes it: `npz:FILE`.
        options: those that it knows beside the ones of every source; `val` and `test` among them: they may name parts.
    """

    open: Opener
    form: str
    options: tuple[str, ...]


SOURCES: Registry[DataSource] = Registry("blockforge.data", "data source", "blockforge.train.sources")
_SKIP = "skip_broken"
_METHODS = ("__len__", "batches", "statistics", "digest", "crops")
FIRST = 5
"""Problems that an error lists."""


def source(prefix: str, form: str, options: tuple[str, ...] = ()) -> Callable[[Opener], Opener]:
    """Register what opens `prefix` or `prefix:REST`; `form` is how a person writes it."""
    SOURCES.check_name(prefix)

    def add(opener: Opener) -> Opener:
        SOURCES.add(prefix, DataSource(opener, form, options), opener.__module__)
        return opener

    return add


def refuse(data: Data) -> None:
    """Raises: DataError with the first problems of data that have some."""
    if not data.problems:
        return
    many = len(data.problems)
    first = "".join(f"\n  {problem}" for problem in data.problems[:FIRST])
    more = f"\n  ... and {many - FIRST} more" if many > FIRST else ""
    hint = f"blockforge data check {data.name} lists what is wrong; --skip-broken leaves it out"
    raise DataError(f"{data.name}: {many} {'is' if many == 1 else 'are'} wrong{first}{more}\n  hint: {hint}")


def look(name: str) -> Data:
    """Data by name, with what is wrong in them. Raises: DataError as `open_data`, except for their problems."""
    return named_data(name)[0]


def check_name(data: str) -> None:
    """Raises: DataError for a name or an option that no source has, as far as it is known before data are read."""
    _source_of(data)


def named_data(data: str, least: int = 2) -> tuple[Data, bool]:
    """Data by name, and whether their options want what is broken left out."""
    (opener, _, known), rest, options = _source_of(data)
    skips = options.pop(_SKIP, "false").lower() in ("true", "1", "yes")
    cuts = Cuts.of(options, known)
    module = opener.__module__
    with plugin_code(f"data source '{data}'", module, DataError):
        opened = opener(rest, options)
        if (wrong := _wrong(opened)) is not None:
            raise DataError(f"data source '{data}' ({defined_in(module)}) gives {wrong}\n  hint: it gives an Opened")
        opened = with_parts(opened, cuts, data)
        if len(opened.classes) < least:
            raise DataError(f"{data} has {len(opened.classes)} class; a classifier needs two or more")
        assert opened.val is not None, "cut, or refused"
        for split, what in ((opened.train, "train on"), (opened.val, "choose by"), (opened.test, "test on")):
            if split is not None and not len(split):
                raise DataError(f"{data} has no image to {what}")
        told = opened.named, tuple(opened.problems), tuple(opened.notes)
        train, val = guarded(opened.train, data), guarded(opened.val, data)
        test = guarded(opened.test, data) if opened.test is not None else None
        return Data(data, tuple(opened.classes), train, val, *told, test), skips


def _wrong(opened: Opened) -> str | None:
    """What a source may not give: code of others says what it likes; None: all is right."""
    if not isinstance(opened, Opened):
        return type(opened).__name__
    if isinstance(opened.classes, str) or not all(isinstance(name, str) for name in opened.classes):
        return f"{str(opened.classes)[:80]} as names of classes"
    for part in ("train", "val", "test"):
        split = getattr(opened, part)
        if not all(hasattr(split, method) for method in _METHODS) and (split is not None or part == "train"):
            return f"{type(split).__name__} as images to {part}"
    return None


def _source_of(data: str) -> tuple[DataSource, str, dict[str, str]]:
    """The source that a name names, what follows the colon, and the options."""
    name, options = _split_options(data)
    prefix, colon, rest = name.partition(":")
    forms = ", ".join(known.form for known in SOURCES.values())
    if prefix not in SOURCES:
        hint = did_you_mean(prefix, SOURCES)
        if not colon and os.path.isdir(prefix):
            hint = f"for a folder of images imagefolder:{prefix}"
        raise DataError(f"no data source '{prefix[:80]}'\n  hint: {hint}; as in {forms}")
    source = SOURCES[prefix]
    if bool(rest) != (":" in source.form) or bool(colon) != bool(rest):
        raise DataError(f"'{name[:200]}' is not how this source is written\n  hint: {source.form}")
    allowed = tuple(dict.fromkeys((*source.options, *OPTIONS, _SKIP)))
    for option in options:
        if option not in allowed:
            raise DataError(f"{prefix} has no option '{option}'\n  hint: {did_you_mean(option, allowed, 'options')}")
    return source, rest, options


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    """`hf:name?val=test&label=fine` -> (`hf:name`, {val: test, label: fine})."""
    name, mark, rest = text.rpartition("?")
    pairs = [pair.partition("=") for pair in rest.split("&")]
    if not mark or not all(key.isidentifier() and equals for key, equals, _ in pairs):
        return text, {}
    options: dict[str, str] = {}
    for key, _, value in pairs:
        if key in options:
            raise DataError(f"{name} is given the option '{key}' twice\n  hint: leave out one of them")
        options[key] = value
    return name, options
