"""What stands at a path of a spec, through the names and holes on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.tree import AbsentError, ExpressionError
from blockforge.spec.model import Basics
from blockforge.spec.references import label_of
from blockforge.spec.values import Expr, Hole, Ref

Options = Callable[[Hole], list[Any]]
"""What a hole may stand for."""
_MAX_FOLLOWED = 30
"""Names that stand for names."""
_MAX_COMPUTED = 1000
"""Values of an expression, for all values of the names in it."""


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


def all_at(
    tree: Mapping[str, Any], path: Path, options: Options, computed: Callable[[Expr], None] | None = None
) -> Iterator[Any]:
    """All that may stand at a path of a lifted tree, or at that of a name in its `let`.

    Args:
        computed: told of each expression whose value may stand there.
    """
    yield from _Walk(within_reach(tree, path), options, computed).below(start_of(tree, path), path)


def start_of(tree: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Where a path begins: a single name may be one of `let`."""
    shared = tree.get("let")
    return shared if len(path) == 1 and isinstance(shared, dict) and path[0] in shared else tree


def within_reach(tree: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """What gives names at a path, the nearest first: the stage's `let`, the spec's, and the place."""
    place = {"classes": tree.get("num_classes", Basics.model_fields["num_classes"].default)}
    lets = [shared] if isinstance(shared := tree.get("let"), dict) else []
    if len(path) > 1 and path[0] == "stages":
        stage = next((s for s in _items(tree.get("stages"), path[1]) if isinstance(s, dict)), {})
        place |= {"stage": path[1], **({"depth": stage["depth"]} if "depth" in stage else {})}
        lets = [own, *lets] if isinstance(own := stage.get("let"), dict) else lets
    return [*lets, place]


def every_option(hole: Hole) -> list[Any]:
    """`Options` of a hole that is open: all choices, of a range one value."""
    return list(hole.options) if hole.kind == "choice" else [hole.low]


def scalar(value: Any) -> Any:
    """A value of a lifted tree as expressions see it."""
    return "none" if value is None else label_of(value)


@dataclass(frozen=True)
class _Walk:
    """A way down a lifted tree, through names, holes and expressions."""

    lets: list[dict[str, Any]]
    options: Options
    computed: Callable[[Expr], None] | None

    def below(self, value: Any, path: Path, followed: int = 0) -> Iterator[Any]:
        """All that may stand at a path inside of a value. `followed`: names that led here."""
        if isinstance(value, Ref):
            target = next((let[value.name] for let in self.lets if value.name in let), None)
            if target is not None and followed < _MAX_FOLLOWED:
                yield from self.below(target, path, followed + 1)
        elif isinstance(value, Expr):
            if self.computed is not None:
                self.computed(value)
            for candidate in self.values(value, followed + 1) if followed < _MAX_FOLLOWED else ():
                yield from self.below(candidate, path, followed + 1)
        elif isinstance(value, Hole):
            for option in self.options(value):
                called = None if path else _name_of(value, option)
                yield from [called] if called else self.below(option, path, followed)
        elif not path:
            yield value
        elif isinstance(value, dict) and path[0] in value:
            yield from self.below(value[path[0]], path[1:], followed)
        for item in _items(value, path[0]) if path else ():
            yield from self.below(item, path[1:], followed)

    def values(self, expr: Expr, followed: int) -> Iterator[Any]:
        """What an expression gives for all that its names may stand for; none where it has no value."""
        names = sorted(expr.names())
        known = [list(self.below(Ref(name), (), followed)) for name in names]
        for values in itertools.islice(itertools.product(*known), _MAX_COMPUTED):
            try:
                yield expr.evaluate(dict(zip(names, values, strict=True)).__getitem__)
            except ExpressionError:
                continue  # the compiler says so


def _name_of(hole: Hole, option: Any) -> Any:
    """What a choice among mappings or lists is called that has a name of its own."""
    if not hole.named or not isinstance(option, dict | list):
        return None
    return next((label for label, known in zip(hole.labels, hole.options, strict=True) if known is option), None)


def _items(value: Any, index: int | str) -> list[Any]:
    """The item of a list at an index, if there is one."""
    return value[index : index + 1] if isinstance(value, list) and isinstance(index, int) else []
