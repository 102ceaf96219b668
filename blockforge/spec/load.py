"""From a zoo name, a file, a text or a mapping to a validated Spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from blockforge.errors import Loc, Locs, Path, Report, Source, SpecError, did_you_mean
from blockforge.spec.loader import Document, load_file, load_text
from blockforge.spec.merge import Base, extend, override
from blockforge.spec.model import Spec
from blockforge.spec.schema_errors import report_schema_errors
from blockforge.spec.values import lift

SpecLike = Spec | str | os.PathLike[str] | Mapping[str, Any]
_SUFFIXES = (".yaml", ".yml")


def list_specs(pattern: str = "*") -> list[str]:
    """Names of the zoo's specs that match a shell pattern, as in `smt*`."""
    names = (f.name.removesuffix(".yaml") for f in resources.files("blockforge.specs").iterdir() if f.name.endswith(".yaml"))
    return sorted(n for n in names if fnmatch(n, pattern))


def load(source: SpecLike, overrides: Mapping[str, Any] | list[str] | None = None) -> Spec:
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
        if not overrides:
            return source
        return parse(override(Document(source.tree, source.locs), overrides))
    document = extend(_open(source), _find)
    return parse(override(document, overrides) if overrides else document)


def parse(document: Document) -> Spec:
    """Validate one document whose `extends` is already merged."""
    report = Report(document.locs)
    if not isinstance(document.tree, dict):
        report.error("spec", "a spec is a mapping of keys", hint="start with: blockforge: 1")
        report.close()
    lifted = lift(document.tree, report)
    report.close()
    try:
        spec = Spec.model_validate(lifted)
    except ValidationError as e:
        report_schema_errors(e, Spec, report)
        report.close()
        raise
    object.__setattr__(spec, "_tree", document.tree)
    object.__setattr__(spec, "_locs", document.locs)
    return spec


def from_text(text: str, name: str = "<text>") -> Spec:
    """A spec from YAML text; `extends` may name zoo specs and paths from the current folder."""
    return parse(extend(Base(name, load_text(text, name)), _find))


def _open(source: str | os.PathLike[str] | Mapping[str, Any]) -> Base:
    if isinstance(source, Mapping):
        return Base("<mapping>", _from_mapping(source))
    text = os.fspath(source)
    is_path = not isinstance(source, str) or text.endswith(_SUFFIXES) or os.sep in text
    if is_path:
        return Base(os.path.realpath(text), load_file(text))
    try:
        return _zoo(text)
    except LookupError as e:
        raise SpecError(_plain_error(*e.args)) from None


def _find(name: str, child: Base) -> Base:
    """What `extends: name` means in `child`: a path beside it, or a zoo name."""
    if name.endswith(_SUFFIXES) or "/" in name:
        path = FilePath(child.name).parent / name
        return Base(os.path.realpath(path), load_file(path))
    return _zoo(name)


def _zoo(name: str) -> Base:
    file = resources.files("blockforge.specs") / f"{name}.yaml"
    if not name.replace("_", "").replace("-", "").isalnum() or not file.is_file():
        hint = did_you_mean(name, list_specs(), what="zoo") + "; a file needs its .yaml"
        raise LookupError(f"no spec named '{name}' in the zoo", hint)
    return Base(f"zoo:{name}", load_text(file.read_text(encoding="utf-8"), f"{name}.yaml"))


def _plain_error(message: str, hint: str) -> list[Any]:
    report = Report(Locs())
    report.error("file", message, hint=hint)
    return report.found


def _from_mapping(source: Mapping[str, Any]) -> Document:
    """A document from Python data: tuples are lists, keys are text or numbers, places are paths."""
    report = Report(Locs({(): (None, Loc(Source("<mapping>", ()), 1, 1))}))
    tree = _plain_data(source, (), report, 0)
    report.close()
    return Document(tree, report.locs)


def _plain_data(value: Any, path: Path, report: Report, depth: int) -> Any:
    if depth > 32:
        report.error("spec", "nested more than 32 deep", path[:4])
        return None
    if isinstance(value, Mapping):
        return {k: _plain_data(v, (*path, k), report, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_data(v, (*path, i), report, depth + 1) for i, v in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    report.error("spec", f"a {type(value).__name__} has no place in a spec", path)
    return None
