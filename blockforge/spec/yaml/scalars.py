"""Plain (unquoted) YAML scalars -> values: the core schema of YAML 1.2, and nothing of 1.1.

`on`, `yes`, `12:30:45`, `1_000` and `2024-01-01` are text; `1e-3` is a number. A spec holds finite numbers
and 64-bit integers, so that every consumer (JSON, numpy, Optuna) can take them as they are.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DIGITS_64 = 19  # 2**63 has 19 decimal digits


class ScalarError(ValueError):
    """A number that a spec cannot hold."""


def resolve(text: str) -> Scalar:
    """The value of a plain scalar.

    Raises:
        ScalarError: for `.inf`, `.nan`, a float that overflows, an integer beyond 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _DECIMAL.fullmatch(text):
        return _decimal(text)
    if _BASED.fullmatch(text):
        return _checked(int(text, 0), text)
    if _FLOAT.fullmatch(text):
        if math.isinf(number := float(text)):
            raise ScalarError(f"{shorten(text)} is too large for a number")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} is not a finite number")
    return text


def shorten(text: str, limit: int = 60) -> str:
    """`text` for a message: on one line, no control characters, cut at `limit` characters."""
    safe = text if text.isprintable() else repr(text)[1:-1]
    return safe if len(safe) <= limit else f"{safe[: limit - 3]}..."


def _decimal(text: str) -> int:
    """Python refuses to convert thousands of digits, so the length is looked at first."""
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > _DIGITS_64:
        raise _too_wide(text)
    return _checked(-int(digits) if text.startswith("-") else int(digits), text)


def _checked(number: int, text: str) -> int:
    if not -(2**63) <= number < 2**63:
        raise _too_wide(text)
    return number


def _too_wide(text: str) -> ScalarError:
    return ScalarError(f"{shorten(text)} does not fit in 64 bits")
