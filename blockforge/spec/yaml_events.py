"""PyYAML's events: the same ones whether it was built with libyaml or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

import yaml
from yaml.scanner import ScannerError

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(u[dD][89a-fA-F]|U0000[dD][89a-fA-F]|.)", re.DOTALL)
_GLUED = frozenset(":" + following for following in ",?[]{}")


class Mark(Protocol):
    """A place as PyYAML gives it; all three count from 0."""

    index: int
    line: int
    column: int


def mark_at(text: str, index: int) -> Mark:
    """The place of a character."""
    return yaml.Mark("", index, text.count("\n", 0, index), index - text.rfind("\n", 0, index) - 1, None, 0)


class PythonParser(yaml.BaseLoader):
    """PyYAML's parser in Python; refuses what libyaml refuses too."""

    def scan_plain(self) -> Any:
        token: Any = super().scan_plain()
        if self.flow_level and (":?" in token.value or self.prefix(2) in _GLUED):
            start = token.start_mark
            raise ScannerError("while scanning a plain scalar", start, "found unexpected ':'", token.end_mark)
        return token

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> list[str]:
        first = self.index
        try:
            chunks: list[str] = super().scan_flow_scalar_non_spaces(double, start_mark)
        except (ValueError, OverflowError):  # from chr(), beyond U+10FFFF
            raise _bad_escape(start_mark, self.get_mark()) from None
        if double and _SURROGATE.search("".join(chunks)):
            escapes = _ESCAPE.finditer(self.buffer, first, self.index)
            raise _bad_escape(
                start_mark, mark_at(self.buffer, next(m.start() for m in escapes if len(m[1]) > 1))
            )
        return chunks


def _bad_escape(start: Any, at: Any) -> ScannerError:
    return ScannerError(
        "while scanning a quoted scalar", start, "found invalid Unicode character escape code", at
    )


# libyaml is about ten times faster.
Parser: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else PythonParser


def events(text: str) -> Iterator[Any]:
    """The events of `text`.

    Raises:
        yaml.YAMLError: where the text stops being YAML.
    """
    parser = Parser(text)
    try:
        while (event := parser.get_event()) is not None:
            yield event
    finally:
        parser.dispose()
