"""PyYAML's events: the same ones whether it was built with libyaml or not."""

from __future__ import annotations

import re
from typing import Any, Protocol

import yaml
from yaml.scanner import ScannerError

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(u[dD][89a-fA-F]|U0000[dD][89a-fA-F]|.)", re.DOTALL)
_GLUED = frozenset(":" + following for following in ",[]{}?")


class Mark(Protocol):
    """A place as PyYAML gives it; all three count from 0."""

    index: int
    line: int
    column: int


def mark_at(text: str, index: int, before: Mark | None = None) -> Mark:
    """The place of a character. `before` is a known one in front of it, from where the lines are counted."""
    start, line, column = (before.index, before.line, before.column) if before else (0, 0, 0)
    if lines := text.count("\n", start, index):
        return yaml.Mark("", index, line + lines, index - text.rfind("\n", start, index) - 1, None, 0)
    return yaml.Mark("", index, line, column + index - start, None, 0)


class PythonParser(yaml.BaseLoader):
    """PyYAML's parser in Python; refuses what libyaml refuses, and `?` where versions of that differ."""

    def scan_plain(self) -> Any:
        token: Any = super().scan_plain()
        if self.flow_level and self.prefix(2) in _GLUED:
            raise _unexpected(":", token.start_mark, token.end_mark)
        if self.flow_level and self.peek() == "?":
            raise _unexpected("?", token.start_mark, token.end_mark)
        return token

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> list[str]:
        first = self.index
        try:
            chunks: list[str] = super().scan_flow_scalar_non_spaces(double, start_mark)
        except (ValueError, OverflowError):  # from chr(), beyond U+10FFFF
            raise _bad_escape(start_mark, self.get_mark()) from None
        if double and _SURROGATE.search("".join(chunks)):
            escapes = _ESCAPE.finditer(self.buffer, first, self.index)
            at = next(match.start() for match in escapes if len(match[1]) > 1)
            raise _bad_escape(start_mark, mark_at(self.buffer, at))
        return chunks


def _unexpected(character: str, start: Any, at: Any) -> ScannerError:
    return ScannerError("while scanning a plain scalar", start, f"found unexpected '{character}'", at)


def _bad_escape(start: Any, at: Any) -> ScannerError:
    return ScannerError("while scanning a quoted scalar", start, "found invalid escape code", at)


# libyaml is about ten times faster.
Parser: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else PythonParser
