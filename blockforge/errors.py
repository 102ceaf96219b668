"""What a user's mistake looks like: a place, a code, a message, and what to do about it.

Everything that is the user's to mend derives from `BlockforgeError`; the command line catches that and
nothing else. Language errors are collected as `Diagnostic`s and raised together as one `SpecError`.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

Path = tuple[str | int, ...]
"""The way from the top of a document to a value: `("stages", 2, "depth")`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was parsed: a file, a string, or one `--set` argument."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loc:
    """A place in a source. `line` and `column` count from 1."""

    source: Source
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """The source line with a caret line below it; long lines are cut around the place."""
        if not 1 <= self.line <= len(self.source.lines):
            return ""
        text = self.source.lines[self.line - 1].replace("\t", " ")
        start = max(0, self.column - 1 - 60)
        shown = text[start : start + 120]
        carets = "^" * max(1, min(self.length, len(shown) - (self.column - 1 - start)))
        gutter = f"{self.line:>5} | "
        return f"{gutter}{shown}\n{' ' * (len(gutter) - 2)}| {' ' * (self.column - 1 - start)}{carets}"


class Locs:
    """Where each path of a document was written: `path -> (Loc of the key, Loc of the value)`."""

    def __init__(self, table: dict[Path, tuple[Loc | None, Loc]] | None = None) -> None:
        self.table = table if table is not None else {}

    def written(self, path: Path) -> Path:
        """The path as it is written: of a list in an op's place, which is its `op`, the items are."""
        kept: Path = ()
        for part, inner in itertools.zip_longest(path, path[1:]):
            if part != "op" or (*kept, part) in self.table or (*kept, inner) not in self.table:
                kept = (*kept, part)
        return kept

    def value(self, path: Path) -> Loc | None:
        """The place of the value at `path`, or of the nearest enclosing one that was written."""
        places = self._nearest(path)
        return places[1] if places else None

    def key(self, path: Path) -> Loc | None:
        """The place of the key at `path`; where it has none (a list's item), that of the value."""
        places = self._nearest(path)
        return (places[0] or places[1]) if places else None

    def _nearest(self, path: Path) -> tuple[Loc | None, Loc] | None:
        path = self.written(path)
        for end in range(len(path), -1, -1):
            if (places := self.table.get(path[:end])) is not None:
                return places
        return None


def parse_path(text: str) -> Path:
    """`stages.2.depth`, or `stages[2].depth` -> `("stages", 2, "depth")`."""
    parts = text.replace("[", ".").replace("]", "").split(".")
    return tuple(int(p) if p.isascii() and p.isdigit() and len(p) < 9 else p for p in parts)


def format_path(path: Path) -> str:
    """`("stages", 2, "depth")` -> `stages[2].depth`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `related` places are shown below it: what the value disagrees with."""

    code: str
    message: str
    path: Path = ()
    loc: Loc | None = None
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    related: tuple[tuple[str, Loc], ...] = ()

    def render(self) -> str:
        """`file:line:col: error[code]: message (path)`, the source line with a caret, the hint."""
        where = f"{self.loc}: " if self.loc else ""
        path = f" ({format_path(self.path)})" if self.path else ""
        lines = [f"{where}{self.severity}[{self.code}]: {self.message}{path}"]
        if self.loc:
            lines.append(self.loc.excerpt())
        for text, loc in self.related:
            lines += [f"  {text}: {loc}", loc.excerpt()]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(line for line in lines if line)


class BlockforgeError(Exception):
    """Base of everything that is the user's to mend. `exit_code` is the command line's.

    Attributes:
        setting: which of a search's settings it is about, if that is known.
    """

    exit_code = 1
    setting: Path | None = None

    def about(self, *setting: str | int) -> Self:
        """The same error, about a setting unless that is known already."""
        self.setting = self.setting or setting
        return self


class SpecError(BlockforgeError, ValueError):
    """A spec that is wrong. Carries every error of the pass that found it, in source order."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted(diagnostics, key=_source_order)
        super().__init__("\n".join(d.render() for d in self.diagnostics))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Diagnostic]]]:
        return SpecError, (self.diagnostics,)


class PluginError(BlockforgeError):
    """A plugin that cannot be used, or that is missing."""


class OpError(BlockforgeError, ValueError):
    """A building block that cannot stand where it was put; the compiler adds the place.

    Args:
        message: the law and the values, `dim 30 is not divisible by num_heads 4`.
        hint: what would be right.
        param: the block's parameter at fault, if it is one.
        code: short name of the law.

    Attributes:
        at: where it is written, if that is known.
        calls: the calls of definitions on the way there, the innermost first, and where each is written.
        sources: what else takes part, maps that do not meet, and where each is written.
        is_of_text: whether what is written is wrong on any map.
        also: further mistakes of the same block.
    """

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None, code: str = "shape") -> None:
        super().__init__(message)
        self.hint, self.param, self.code = hint, param, code
        self.at: Path | None = None
        self.calls: list[tuple[str, Path]] = []
        self.sources: list[tuple[str, Path]] = []
        self.is_of_text = code.startswith("unknown-")
        self.also: list[OpError] = []

    def placed_at(self, at: Path) -> OpError:
        """The same error, written at a place of the spec unless that is known already: the innermost one is it."""
        if self.at is None and at:
            self.at = (*at, self.param) if self.param else at
        return self


def paths_differ(widths: bool) -> str:
    """What to do where an op gives another map than its identity path. `widths`: the widths differ."""
    around = "skip: false leaves the identity path out; skip: {op: ...} puts an op on it"
    return f"dim: $out on the last op gives the width that is asked for; {around}" if widths else around


class InputError(BlockforgeError, ValueError):
    """A tensor that a built network cannot take as its images."""


class BudgetError(BlockforgeError, ValueError):
    """A budget that cannot be read or met."""


class OutputError(BlockforgeError, OSError):
    """A file or a folder that cannot be written.

    Attributes:
        reason: why, without the place: `no space left on device`.
    """

    reason = ""

    @classmethod
    def of(cls, path: object, reason: str) -> OutputError:
        """The file at `path` cannot be written."""
        error = cls(f"cannot write {path}: {reason}")
        error.reason = reason
        return error

    @classmethod
    def to(cls, folder: object, reason: str) -> OutputError:
        """Nothing can be written into a folder."""
        error = cls(f"cannot write to {folder}: {reason}")
        error.reason = reason
        return error


class WeightsError(BlockforgeError, ValueError):
    """A checkpoint that does not fit the model, or cannot be read safely."""


class DataError(BlockforgeError, ValueError):
    """Images or labels that are missing, cannot be read, or do not fit."""


class RunError(BlockforgeError, ValueError):
    """A folder that holds another training run, or a setting that cannot work."""


class SearchError(BlockforgeError, ValueError):
    """A search that cannot start or go on: nothing to fill, another study in the folder, a folder in use."""


class ScoreError(BlockforgeError, ArithmeticError):
    """A score that is not a number, or that a network has no part for."""


class AnalysisError(BlockforgeError, ValueError):
    """A network, images or options that an analysis cannot work with."""


def _source_order(d: Diagnostic) -> tuple[str, int, int]:
    return (d.loc.source.name, d.loc.line, d.loc.column) if d.loc else ("", 0, 0)


@dataclass
class Report:
    """Collects the findings of a pass; `close()` raises if one of them is an error."""

    locs: Locs
    found: list[Diagnostic] = field(default_factory=list)

    def error(
        self,
        code: str,
        message: str,
        path: Path = (),
        *,
        hint: str | None = None,
        on_key: bool = False,
        loc: Loc | None = None,
        related: Sequence[tuple[str, Loc]] = (),
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Add a finding at `path` (`on_key`: point at the key, not at the value)."""
        place = loc or (self.locs.key(path) if on_key else self.locs.value(path))
        shown = self.locs.written(path)
        self.found.append(Diagnostic(code, message, shown, place, hint, severity, tuple(related)))

    def warn(self, code: str, message: str, path: Path = (), *, hint: str | None = None) -> None:
        """Add a finding that does not stop the pass."""
        self.error(code, message, path, hint=hint, severity="warning")

    @property
    def errors(self) -> Iterator[Diagnostic]:
        return (d for d in self.found if d.severity == "error")

    @property
    def warnings(self) -> list[Diagnostic]:
        return [d for d in self.found if d.severity == "warning"]

    def close(self) -> None:
        """Raise `SpecError` with every error found so far, if there is one."""
        if errors := list(self.errors):
            raise SpecError(errors)


def shown_path(path: str | bytes | os.PathLike[str], limit: int = 120) -> str:
    """A path for a message: on one line, and cut in the middle where it is long. File names may hold anything."""
    text = os.fsdecode(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 3 :]}"


def in_a_line(error: BaseException) -> str:
    """What kind of error it is, and the first line of what it says, of one that a library raises."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of several names that is spelt most like another, in any case; None: none is nearly."""
    folded = {n.lower(): n for n in known}
    close = difflib.get_close_matches(name.lower()[:80], folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[object], what: str = "known", first: Iterable[object] = ()) -> str:
    """`did you mean 'ss2d'? known: attention, sam, ss2d`. What is known may be keys of a mapping: of any kind; `first`:
    what is known and stands before the others."""
    names = [n for group in (first, known) for n in sorted(str(k)[:80] for k in group)]
    close = nearest(name, names)
    listed = f"{what}: {', '.join(names[:40])}{', ...' if len(names) > 40 else ''}" if names else f"{what}: none"
    return f"did you mean '{close}'? {listed}" if close is not None else listed
