"""From a zoo name, a file, a text or a mapping to a validated Spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from blockforge.errors import Diagnostic, Loc, Locs, Report, Source, SpecError, did_you_mean
from blockforge.plugins import YamlFiles
from blockforge.spec.calls import check_definitions
from blockforge.spec.definitions import LibrarySpec, is_library
from blockforge.spec.glossary import Glossary
from blockforge.spec.heads import check_heads
from blockforge.spec.layers import check_all_options
from blockforge.spec.merge import Base, extend, short_path
from blockforge.spec.model import Spec
from blockforge.spec.names import check_names
from blockforge.spec.override import Overrides, override
from blockforge.spec.references import lift
from blockforge.spec.relations.require import check_relations
from blockforge.spec.schema_errors import validated
from blockforge.spec.use import inline
from blockforge.spec.yaml.loader import Document, load_file, load_text, text_of
from blockforge.spec.yaml.plain_data import plain_data
from blockforge.spec.yaml.scalars import shorten

SpecLike = Spec | str | os.PathLike[str] | Mapping[str, Any]
SPECS = YamlFiles("blockforge.specs", "spec", "blockforge.specs")
"""The zoo."""
DEFINITIONS = YamlFiles("blockforge.definitions", "file of definitions", "blockforge.definitions")
"""Files that `use` reads by their names."""
_SUFFIXES = (".yaml", ".yml")


def list_specs(pattern: str = "*") -> list[str]:
    """Names of the zoo's specs that match a shell pattern, as in `smt*`."""
    return sorted(name for name in SPECS if fnmatch(name, pattern))


def load(source: SpecLike, overrides: Overrides | None = None) -> Spec:
    """Read and validate a spec.

    Args:
        source: a zoo name (`smt_b`), a path (`specs/smt_b.yaml`), a mapping, or a Spec.
        overrides: values to replace by path, `{"stages.2.depth": 12}` or `["stages.2.depth=12"]`.
    Returns:
        The spec, with everything it extends merged; references and holes are still in it.
    Raises:
        SpecError: with every error that the pass found.
    """
    if isinstance(source, Spec):
        return parse(override(Document(source.tree, source.locs), overrides)) if overrides else source
    return _loaded(_open(source), overrides)


def _loaded(base: Base, overrides: Overrides | None) -> Spec:
    document = extend(_whole(base), _find)
    if overrides:
        document = inline(Base("--set", override(document, overrides)), _find_definitions)
    return parse(document)


def from_text(text: str, name: str = "<text>") -> Spec:
    """A spec from YAML text; `extends` may name zoo specs and paths from the current folder."""
    return parse(extend(_whole(Base(name, load_text(text, name))), _find))


class Library(NamedTuple):
    """What a file of definitions gives, with those that it uses, and where it stands."""

    glossary: Glossary
    locs: Locs


def load_either(source: SpecLike, overrides: Overrides | None = None) -> Spec | Library:
    """A spec as `load` gives it, or what a file of definitions gives.

    Raises:
        SpecError: with every error that the pass found.
    """
    if isinstance(source, Spec):
        return load(source, overrides)
    base = _open(source)
    return _library(base) if is_library(base.document.tree) else _loaded(base, overrides)


def _library(base: Base) -> Library:
    document = inline(base, _find_definitions)
    report = Report(document.locs)
    lifted = lift(document.tree, report)
    validated(LibrarySpec, lifted, report)
    check_definitions(lifted, report)
    report.close()
    return Library(Glossary.of(lifted), document.locs)


def parse(document: Document) -> Spec:
    """Validate one document whose `extends` is already merged."""
    report = Report(document.locs)
    lifted = lift(document.tree, report)
    if not isinstance(lifted, dict):
        hint = "start with: blockforge: 1; a hole stands in place of a value"
        report.error("spec", "a spec is a mapping of keys", hint=hint)
        report.close()
    if is_library(lifted):
        hint = "a spec reads it by `use: [FILE]`; `blockforge check FILE` checks what it defines"
        report.error("spec", "this is a file of definitions, and no network", hint=hint)
        report.close()
    check_names(lifted, report)
    check_all_options(lifted, report)
    check_relations(lifted, report)
    check_heads(lifted, report)
    spec = validated(Spec, lifted, report)
    check_definitions(lifted, report)
    report.close()
    return spec.with_source(document.tree, document.locs)


def _open(source: str | os.PathLike[str] | Mapping[str, Any]) -> Base:
    if isinstance(source, Mapping):
        return Base("<mapping>", _from_mapping(source))
    if not isinstance(source, str | os.PathLike):
        text = f"a spec is a zoo name, a path, a mapping or a Spec, not a {type(source).__name__}"
        raise SpecError([Diagnostic("file", text)])
    text = os.fsdecode(source)
    if not isinstance(source, str) or _is_path(text):
        _refuse_zoo_file(text)
        return Base(real_path(text), load_file(text))
    return _zoo(text)


def _refuse_zoo_file(text: str) -> None:
    """A zoo name with a suffix, where there is no such file, is a slip that has a hint of its own."""
    name, suffix = os.path.splitext(text)
    if suffix in _SUFFIXES and name in list_specs() and not os.path.lexists(text):
        hint = f"{name}, without {suffix}, is in the zoo"
        raise SpecError([Diagnostic("file", f"cannot read {text}: no such file or directory", hint=hint)])


def _is_path(text: str) -> bool:
    return text.endswith(_SUFFIXES) or "/" in text or os.sep in text


def _find(name: str, child: Base) -> Base:
    """What `extends: name` means in `child`: a path beside it, or a zoo name."""
    return _whole(_file(name, child) if _is_path(name) else _zoo(name))


def _find_definitions(name: str, child: Base) -> Base:
    """What `use: [name]` means in `child`: a path beside it, or a packaged file."""
    if _is_path(name):
        return _file(name, child)
    if name not in DEFINITIONS:
        hint = did_you_mean(name, DEFINITIONS, what="packaged files") + "; a file of yours needs its .yaml"
        raise SpecError([Diagnostic("file", f"no file of definitions is named '{shorten(name)}'", hint=hint)])
    return _packaged(DEFINITIONS, name)


def _whole(base: Base) -> Base:
    """The document with all that it uses."""
    return Base(base.name, inline(base, _find_definitions))


def _file(name: str, child: Base) -> Base:
    path = real_path(FilePath(child.name).parent / name)
    return Base(path, load_file(short_path(path)))


def real_path(path: str | os.PathLike[str]) -> str:
    """The path without links, by which files are told apart; of one that cannot exist, itself."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL in it
        return os.fspath(path)


def _zoo(name: str) -> Base:
    if name not in (known := list_specs()):
        hint = did_you_mean(name, known, what="zoo") + "; a file needs its .yaml"
        raise SpecError([Diagnostic("file", f"no spec named '{shorten(name)}' in the zoo", hint=hint)])
    return _packaged(SPECS, name)


def _packaged(files: YamlFiles, name: str) -> Base:
    file = files[name]
    return Base(os.path.realpath(str(file)), load_text(text_of(file), files.shown(name)))


def _from_mapping(source: Mapping[str, Any]) -> Document:
    """A document from Python data: tuples are lists, keys are text or numbers, places are paths."""
    report = Report(Locs({(): (None, Loc(Source("<mapping>", ()), 1, 1))}))
    tree = plain_data(source, report)
    report.close()
    return Document(tree, report.locs)
