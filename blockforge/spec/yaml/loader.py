"""YAML text -> a plain tree and the place of everything in it.

Strict: one document in UTF-8, no tags, no merge keys, no duplicate keys, the scalars of YAML 1.2. Sizes are
bounded before they are used, so a hostile text costs no more than a long honest one.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from blockforge.errors import Diagnostic, Loc, Locs, Report, Source, SpecError, shown_path
from blockforge.spec.yaml.builder import TreeBuilder
from blockforge.spec.yaml.events import mark_at

MAX_BYTES = 256 * 1024
"""Of a text or file. `yaml_tree` and `yaml_builder` bound what may be in it."""

# What YAML may hold, less the exotic line breaks (U+0085, U+2028, U+2029), which editors do not count as
# lines, and the byte order mark, which belongs at the start.
_FORBIDDEN = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_COMMENT = re.compile(r"""(?:[^"']* )?\#""")


@dataclass(frozen=True)
class Document:
    """A parsed text: plain dicts, lists and scalars, and where each of them was written."""

    tree: Any
    locs: Locs


def load_text(text: str, name: str = "<text>") -> Document:
    """Parse one YAML document.

    Raises:
        SpecError: with every mistake that can be found in one pass.
    """
    return _load(text, name, inline=False)


def load_value(text: str, name: str) -> Document:
    """Parse one value as `--set path=value` gives it: a scalar, `[...]` or `{...}`."""
    return _load(text, name, inline=True)


def load_file(path: str | os.PathLike[str]) -> Document:
    """Parse a UTF-8 file.

    Raises:
        SpecError: also if the file cannot be read, is not a regular file, or is too large.
    """
    name = shown_path(path)
    try:
        data = _read(path)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise _file_error(f"cannot read {name}: {reason[:1].lower()}{reason[1:]}") from None
    return load_text(_decoded(data, name), name)


def text_of(file: Traversable) -> str:
    """The text of a file that a package brings, which may be anybody's. Raises: SpecError if it cannot be read, or is
    no UTF-8."""
    name = shown_path(str(file))
    try:
        data = file.read_bytes()
    except OSError as e:
        raise _file_error(f"cannot read {name}: {(e.strerror or str(e)).lower()}") from None
    return _decoded(data, name)


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        message = f"{name} is not UTF-8 text: byte 0x{data[e.start]:02x} in line {line}"
        raise _file_error(message, "save it as UTF-8") from None


def _load(text: str, name: str, *, inline: bool) -> Document:
    name = shown_path(name)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SpecError([Diagnostic("limit", f"{name} is larger than {MAX_BYTES // 1024} KiB")])
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = text if text.endswith("\n") else f"{text}\n"
    source = Source(name, tuple(_FORBIDDEN.sub("\ufffd", text).split("\n")))
    _check_characters(text, source)
    return Document(*TreeBuilder(text, source, inline).build())


def _read(path: str | os.PathLike[str]) -> bytes:
    """At most one byte more than allowed; never waits for a device or for a pipe's writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is a directory" if os.path.isdir(path) else "it is not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 1024} KiB")
    return data


def _file_error(message: str, hint: str | None = None) -> SpecError:
    return SpecError([Diagnostic("file", message, hint=hint)])


def _check_characters(text: str, source: Source) -> None:
    """Refuse what no parser should see, and what PyYAML's two parsers read differently."""
    report = Report(Locs())
    if bad := _FORBIDDEN.search(text):
        mark, code = mark_at(text, bad.start()), ord(bad[0])
        escape = "" if 0xD800 <= code < 0xE000 else rf'; in double quotes it can be written "\u{code:04x}"'
        loc = Loc(source, mark.line + 1, mark.column + 1)
        report.error("character", f"the character U+{code:04X} is not allowed", loc=loc, hint=f"remove it{escape}")
    if "\t" in text:
        _refuse_tabs(source, report)
    if "%" in text and (directives := [i for i, line in enumerate(source.lines) if line.startswith("%")]):
        loc = Loc(source, directives[0] + 1, 1, len(source.lines[directives[0]]))
        hint = "remove the line; quote or indent it if it is text"
        report.error("yaml", "YAML directives ('%') are not allowed", loc=loc, hint=hint)
    report.close()


def _refuse_tabs(source: Source, report: Report) -> None:
    """Only comments may hold tabs: elsewhere one parser skips what the other refuses."""
    tabs = ((i, line, line.find("\t")) for i, line in enumerate(source.lines, 1))
    places = [(i, at) for i, line, at in tabs if at >= 0 and not _COMMENT.match(line[:at])]
    if places:
        (line, column), more = places[0], len(places) - 1
        also = f" (also in {more} more line{'s' * (more > 1)})" if more else ""
        hint = r'write spaces; in double quotes a tab is "\t"'
        report.error("tab", f"tabs are not allowed{also}", loc=Loc(source, line, column + 1), hint=hint)
