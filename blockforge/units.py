"""Quantities as people write them: budgets (`5GFLOPs,30Mparams,200MB`) in, short figures (`4.84G`) out.

One MAC is one multiply-add. Vision papers call that a FLOP, so `5GFLOPs` and `5GMACs` are the same limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction

from blockforge.errors import BudgetError, Diagnostic, Loc, Source

EXAMPLES = "5GFLOPs or 5GMACs (multiply-adds of one image), 30Mparams, 200MB (peak activations); 5GFLOPs,30Mparams"
_MAX_LENGTH = 200
_ITEM = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})\s*(?P<unit>[a-zA-Z]*(?:\s+[a-zA-Z]+)?)")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WORDS = {
    "flop": "macs",
    "flops": "macs",
    "mac": "macs",
    "macs": "macs",
    "param": "params",
    "params": "params",
}


def _units() -> dict[str, tuple[str, int]]:
    """Unit in lower case -> what it limits, and the factor."""
    units = {p + word: (limit, 1000**power) for p, power in _POWERS.items() for word, limit in _WORDS.items()}
    units |= {f"{p}b": ("activation_bytes", 1000**power) for p, power in _POWERS.items() if p}
    return units | {f"{p}ib": ("activation_bytes", 1024**power) for p, power in _POWERS.items() if p}


_UNITS = _units()


@dataclass(frozen=True)
class Budget:
    """Upper limits of a network; None: no limit."""

    macs: int | None = None
    """Multiply-adds of one image."""
    params: int | None = None
    """Learnt parameters."""
    activation_bytes: int | None = None
    """Peak of live activations, one float32 image."""

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, under the names of `Architecture`'s figures."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: limit for name, limit in found.items() if limit is not None}

    def __str__(self) -> str:
        shown = {"macs": lambda v: f"{format_count(v)} MACs", "params": lambda v: f"{format_count(v)} params"}
        return ", ".join(shown.get(n, format_bytes)(v) for n, v in self.limits.items())


def parse_budget(text: str) -> Budget:
    """`5GFLOPs,30Mparams,200MB` -> Budget. Prefixes are K, M, G and T; upper and lower case are the same.

    Raises: BudgetError that points at the part which cannot be read.
    """
    if len(text) > _MAX_LENGTH:
        raise BudgetError(f"a budget has at most {_MAX_LENGTH} characters\n  hint: {EXAMPLES}")
    text = text if text.isprintable() else re.sub(r"[^ -~]", "?", text)
    limits: dict[str, int] = {}
    column = 0
    for part in text.split(","):
        start, item = column + len(part) - len(part.lstrip()), part.strip()
        limit, value = _parse_item(item, text, start)
        if limit in limits:
            raise _error(f"there is a limit on {limit} already", text, start, len(item))
        limits[limit] = value
        column += len(part) + 1
    return Budget(**limits)


def _parse_item(item: str, text: str, start: int) -> tuple[str, int]:
    match = _ITEM.fullmatch(item)
    if not item:
        raise _error("there is no limit here", text, start, 1)
    if match is None:
        what = "is below 0" if item.startswith("-") else "is not a number and a unit"
        raise _error(f"'{item}' {what}", text, start, len(item))
    unit, key = match["unit"], "".join(match["unit"].lower().split())
    if key not in _UNITS:
        what = f"the unit '{unit}' is not known" if key not in _POWERS else f"'{item}' has no unit"
        raise _error(what, text, start + match.start("unit") if unit else start, len(unit) or len(item))
    limit, factor = _UNITS[key]
    value = int(Fraction(match["number"]) * factor)
    if value < 1:
        raise _error(f"'{item}' leaves nothing", text, start, len(item))
    return limit, value


def _error(message: str, text: str, start: int, length: int) -> BudgetError:
    loc = Loc(Source("budget", (text,)), 1, start + 1, length)
    return BudgetError(Diagnostic("budget", message, loc=loc, hint=EXAMPLES).render())


def format_count(value: float) -> str:
    """Three significant figures and a prefix: 4838833152 -> `4.84G`, 32037352 -> `32.0M`, 950 -> `950`."""
    return _scaled(value, ("", "K", "M", "G", "T", "P"))


def format_bytes(value: float) -> str:
    """21676032 -> `21.7 MB`, as powers of 1000."""
    return _scaled(value, (" B", " KB", " MB", " GB", " TB", " PB"))


def _scaled(value: float, suffixes: tuple[str, ...]) -> str:
    power = 0
    while power < len(suffixes) - 1 and abs(value) >= 999.5:
        value, power = value / 1000, power + 1
    if power == 0:
        return f"{value:.0f}{suffixes[0]}"
    text = next(t for digits in (2, 1, 0) if len((t := f"{value:.{digits}f}").lstrip("-")) <= 4)
    return text + suffixes[power]
