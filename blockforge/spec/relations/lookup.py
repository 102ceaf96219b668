"""What stands at a path of a spec, through the names and holes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.tree import AbsentError
from blockforge.spec.references import label_of
from blockforge.spec.values import Hole, Ref

Options = Callable[[Hole], list[Any]]
"""What a hole may stand for."""
_MAX_FOLLOWED = 30
"""Names that stand for names."""


def value_at(tree: Mapping[str, Any], answers: Mapping[str, Any], path: Path) -> Any:
    """What stands at a path once holes are filled; of a mapping or list its label. Raises: AbsentError."""

    def chosen(hole: Hole) -> list[Any]:
        if hole.name not in answers:
            return []
        answer = answers[hole.name]
        return [hole.options[hole.index(answer)] if hole.kind == "choice" else answer]

    for value in all_at(tree, path, chosen):
        return scalar(value)
    raise AbsentError


def all_at(tree: Mapping[str, Any], path: Path, options: Options) -> Iterator[Any]:
    """All that may stand at a path of a lifted tree, or at that of a name in its `let`."""
    shared = tree.get("let")
    lets = [shared] if isinstance(shared, dict) else []
    start: Any = tree
    if len(path) == 1 and lets and path[0] in lets[0]:
        start = lets[0]
    elif len(path) > 1 and path[0] == "stages":
        own = next((s.get("let") for s in _items(tree.get("stages"), path[1]) if isinstance(s, dict)), None)
        lets = [own, *lets] if isinstance(own, dict) else lets
    yield from _below(start, path, lets, options, 0)


def every_option(hole: Hole) -> list[Any]:
    """`Options` of a hole that is open: all choices, of a range one value."""
    return list(hole.options) if hole.kind == "choice" else [hole.low]


def scalar(value: Any) -> Any:
    """A value of a lifted tree as expressions see it."""
    return "none" if value is None else label_of(value)


def _below(value: Any, path: Path, lets: list[dict[str, Any]], options: Options, followed: int) -> Iterator[Any]:
    if isinstance(value, Ref):
        target = next((let[value.name] for let in lets if value.name in let), None)
        if target is not None and followed < _MAX_FOLLOWED:
            yield from _below(target, path, lets, options, followed + 1)
    elif isinstance(value, Hole):
        for option in options(value):
            yield from _below(option, path, lets, options, followed)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _below(value[path[0]], path[1:], lets, options, followed)
    for item in _items(value, path[0]) if path else ():
        yield from _below(item, path[1:], lets, options, followed)


def _items(value: Any, index: int | str) -> list[Any]:
    """The item of a list at an index, if there is one."""
    return value[index : index + 1] if isinstance(value, list) and isinstance(index, int) else []
