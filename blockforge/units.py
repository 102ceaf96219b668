"""Quantities as people write them: budgets (`5GFLOPs,30Mparams,200MB,20ms@cpu`) in, short figures (`4.84G`) out.

One MAC is one multiply-add. Vision papers call that a FLOP, so `5GFLOPs` and `5GMACs` are the same limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from blockforge.errors import BudgetError, Diagnostic, Loc, Source

EXAMPLES = (
    "5GFLOPs or 5GMACs (multiply-adds of one image), 30Mparams, 200MB (peak activations), 20ms@cpu (latency); "
    "5GFLOPs,30Mparams"
)
_MAX_LENGTH = 200
_ITEM = re.compile(
    r"(?:(?P<name>[a-z]+)\s*=\s*)?(?P<number>\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})\s*(?P<unit>[a-zA-Z]*(?:\s+[a-zA-Z]+)?)"
    r"\s*(?:@\s*(?P<device>[a-z]+(?::\d{1,3})?))?"
)
LATENCY, DEVICES = "latency_ms", ("cpu", "cuda")
_NAMES = {"flops": "macs", "macs": "macs", "params": "params", "memory": "activation_bytes", "latency": LATENCY}
"""What may be written before a limit: `latency=20ms@cpu`."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WORDS = {
    "flop": "macs",
    "flops": "macs",
    "mac": "macs",
    "macs": "macs",
    "param": "params",
    "params": "params",
}


def _units() -> dict[str, tuple[str, int | Fraction]]:
    """Unit in lower case -> what it limits, and the factor."""
    units: dict[str, tuple[str, int | Fraction]] = {
        p + word: (limit, 1000**power) for p, power in _POWERS.items() for word, limit in _WORDS.items()
    }
    units |= {f"{p}b": ("activation_bytes", 1000**power) for p, power in _POWERS.items() if p}
    units |= {f"{p}ib": ("activation_bytes", 1024**power) for p, power in _POWERS.items() if p}
    return units | {"us": (LATENCY, Fraction(1, 1000)), "ms": (LATENCY, Fraction(1)), "s": (LATENCY, Fraction(1000))}


_UNITS = _units()


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|sec|min|h|d)?", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}


def parse_duration(given: float | str) -> float:
    """Seconds, from a number of them or from text: `90s`, `5min`, `2h`.

    Raises: BudgetError if it is no time above 0.
    """
    match = _DURATION.fullmatch(str(given).strip())
    seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()] if match else 0.0
    if not seconds > 0:
        raise BudgetError(f"'{given}' is no length of time\n  hint: write 90s, 5min or 2h")
    return seconds


@dataclass(frozen=True)
class Budget:
    """Upper limits of a network; None: no limit."""

    macs: int | None = None
    """Multiply-adds of one image."""
    params: int | None = None
    """Learnt parameters."""
    activation_bytes: int | None = None
    """Peak of live activations, one float32 image."""
    latency_ms: float | None = None
    """Median milliseconds of one image in float32, measured on `device`."""
    device: str | None = None
    """`cpu`, `cuda` or `cuda:N`, where there is a limit on the latency."""

    @property
    def limits(self) -> dict[str, int]:
        """The limits on what a compiled graph tells, under the names of `Architecture`'s figures."""
        found = {"macs": self.macs, "params": self.params, "activation_bytes": self.activation_bytes}
        return {name: limit for name, limit in found.items() if limit is not None}

    def as_dict(self) -> dict[str, int | float | str]:
        """What is set, exactly: `Budget(**known)` is the same budget."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        shown = [figure(name, limit) for name, limit in self.limits.items()]
        return ", ".join([*shown, *([f"{self.latency_ms:g} ms on {self.device}"] if self.latency_ms else [])])


def figure(name: str, value: float) -> str:
    """A cost in words, under its name in `Architecture`: `4.84G MACs`, `32.0M params`, `21.7 MB`."""
    units = {"macs": " MACs", "params": " params"}
    return format_count(value) + units[name] if name in units else format_bytes(value)


def parse_budget(given: str | Sequence[str]) -> Budget:
    """`5GFLOPs,30Mparams,200MB,20ms@cpu` -> Budget; several texts are read as one. Prefixes are K, M, G and T; upper
    and lower case are the same. A latency without a device is the CPU's.

    Raises: BudgetError that points at the part which cannot be read.
    """
    text = given if isinstance(given, str) else ",".join(given)
    if len(text) > _MAX_LENGTH:
        raise BudgetError(f"a budget has at most {_MAX_LENGTH} characters\n  hint: {EXAMPLES}")
    text = text if text.isprintable() else re.sub(r"[^ -~]", "?", text)
    limits: dict[str, int | float | str] = {}
    column = 0
    for part in text.split(","):
        start, item = column + len(part) - len(part.lstrip()), part.strip()
        found = _parse_item(item, text, start)
        if known := next((name for name in found if name in limits), None):
            raise _error(f"there is a limit on {known} already", text, start, len(item))
        limits |= found
        column += len(part) + 1
    return Budget(**limits)  # type: ignore[arg-type]


def _parse_item(item: str, text: str, start: int) -> dict[str, int | float | str]:
    """One limit, under the names of `Budget`'s fields."""
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
    value = Fraction(match["number"]) * factor
    if match["name"] and _NAMES.get(match["name"]) != limit:
        known = ", ".join(_NAMES)
        what = f"'{match['name']}' is not what {unit} measure" if match["name"] in _NAMES else f"limits are on {known}"
        raise _error(what, text, start, len(match["name"]))
    if match["device"] and limit != LATENCY:
        raise _error("only a latency is one of a device", text, start + match.start("device"), len(match["device"]))
    if match["device"] and match["device"].partition(":")[0] not in DEVICES:
        what = f"no device is named '{match['device']}'; there are cpu, cuda and cuda:N"
        raise _error(what, text, start + match.start("device"), len(match["device"]))
    if (value if limit == LATENCY else int(value)) <= 0:
        raise _error(f"'{item}' leaves nothing", text, start, len(item))
    return {LATENCY: float(value), "device": match["device"] or DEVICES[0]} if limit == LATENCY else {limit: int(value)}


def _error(message: str, text: str, start: int, length: int) -> BudgetError:
    loc = Loc(Source("budget", (text,)), 1, start + 1, length)
    return BudgetError(Diagnostic("budget", message, loc=loc, hint=EXAMPLES).render())


def count_of(text: str) -> int | None:
    """The whole number that a text is, of at most 12 digits; None: it is none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,12}\s*", text) else None


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
