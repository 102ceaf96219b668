"""What must divide what, and the nearest values that do."""

from __future__ import annotations

from collections.abc import Iterable

from blockforge.errors import OpError


def divisible(
    value: int, by: int, what: str, by_what: str, param: str | None = None, instead: str | None = None
) -> None:
    """Raise `OpError` unless `by` divides `value`; the hint names the nearest values that would do.

    Args:
        instead: where nobody sets `by` itself, what in place of it would do; see `nearest`.
    """
    if value % by:
        below, above = value - value % by, value + by - value % by
        near = " or ".join(str(v) for v in (below, above) if v > 0)
        if instead is None:
            instead = nearest(by_what, (d for d in range(max(1, by // 2), by * 2) if value % d == 0), by)
        raise OpError(
            f"{what} {value} is not divisible by {by_what} {by}",
            hint=f"{what} {near}{f', or {instead}' if instead else ''} would do",
            param=param,
            code="divisibility",
        )


def nearest(what: str, values: Iterable[int], to: int) -> str:
    """`num_heads 4 or 6`: of the values that would do the two nearest, if there are any."""
    found = sorted(sorted(values, key=lambda v: abs(v - to))[:2])
    return f"{what} {' or '.join(map(str, found))}" if found else ""
