"""An op as a spec writes it, frozen: a name, a mapping with `op`, or a list; references and expressions are in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from blockforge.errors import Path
from blockforge.spec.values import plain


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping of a spec. `at`: where it is written, which does not make it another."""

    items: tuple[tuple[str, Any], ...]
    at: Path = field(default=(), compare=False)

    def __contains__(self, key: str) -> bool:
        return key in [known for known, _ in self.items]  # asked of every op: no generator

    def get(self, key: str, default: Any = None) -> Any:
        for known, value in self.items:
            if known == key:
                return value
        return default

    def without(self, *keys: str) -> dict[str, Any]:
        return {k: v for k, v in self.items if k not in keys}


@dataclass(frozen=True, slots=True)
class Seq:
    """A list of a spec."""

    items: tuple[Any, ...]
    at: Path = field(default=(), compare=False)


def freeze(value: Any, at: Path = ()) -> Any:
    """A tree of a spec as values that are equal if they say the same, wherever they stand."""
    if isinstance(value, dict):
        return Map(tuple((str(k), freeze(v, (*at, k))) for k, v in value.items()), at)
    if isinstance(value, list | tuple):
        return Seq(tuple(freeze(v, (*at, i)) for i, v in enumerate(value)), at)
    return value


def thaw(value: Any) -> Any:
    """The tree that `freeze` froze, as a spec writes it."""
    if isinstance(value, Map):
        return {k: thaw(v) for k, v in value.items}
    return [thaw(v) for v in value.items] if isinstance(value, Seq) else plain(value)


def parts_of(value: Any) -> Iterator[Any]:
    """Every value in a frozen tree, itself first."""
    yield value
    inner = [v for _, v in value.items] if isinstance(value, Map) else value.items if isinstance(value, Seq) else ()
    for part in inner:
        yield from parts_of(part)


def place_in(value: Any, at: Path) -> Path:
    """Where a value is written that stands at `at`: a mapping or a list knows better, since it may come from afar."""
    return value.at if isinstance(value, (Map, Seq)) and value.at else at
