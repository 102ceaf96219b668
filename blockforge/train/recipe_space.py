"""A recipe with holes: `lr: {$log: [1.0e-4, 1.0e-2]}`. A search fills them beside those of the spec."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Locs, Report
from blockforge.spec.holes import fill_tree
from blockforge.spec.references import lift
from blockforge.spec.values import BROKEN, Expr, Hole, Ref, all_values, plain
from blockforge.spec.yaml.loader import Document
from blockforge.train.recipe import NO_RESULT, Recipe, checked_recipe, read_recipe

PREFIX = "recipe"
"""What the names of its holes begin with, as in `recipe.lr`: no spec has such a key."""


@dataclass(frozen=True)
class RecipeSpace:
    """A recipe of which some values are still to be chosen.

    Attributes:
        tree: the recipe as it is written, with what it extends merged.
        holes: by name, `recipe.lr`, those inside choices included.
    """

    tree: dict[str, Any]
    holes: dict[str, Hole]
    _lifted: dict[str, Any] = dataclasses.field(repr=False, compare=False)
    _locs: Locs = dataclasses.field(repr=False, compare=False)

    def filled(self, answers: Mapping[str, Any]) -> Recipe:
        """The recipe with its holes filled; one without an answer takes its first choice or lowest value.

        Args:
            answers: name of a hole -> label of a choice, or number in the range; other names do not matter.
        Raises: SpecError if that is no recipe.
        """
        return checked_recipe(Document(plain(fill_tree(self._lifted, answers)), self._locs))

    def asked(self, ask: Callable[[Hole], Any]) -> Recipe:
        """The recipe with the answer of `ask` for each hole that is met; those of choices not taken are not.

        Raises: SpecError if the answers together are no recipe.
        """
        answers: dict[str, Any] = {}
        _meet(self._lifted, ask, answers)
        return self.filled(answers)

    def middle(self) -> dict[str, Any]:
        """An answer for each hole: the first choice, the middle of a range."""
        return {name: _middle(hole) for name, hole in self.holes.items()}


def recipe_space(source: str | os.PathLike[str] | Mapping[str, Any]) -> RecipeSpace:
    """Read a recipe that may have holes, and try every end of each.

    Raises: SpecError with what is wrong, a hole that changes no result included.
    """
    document = read_recipe(source)
    report = Report(document.locs)
    about = {k: v for k, v in document.tree.items() if k == "about"}
    rest = {k: v for k, v in document.tree.items() if k != "about"}
    lifted = about | lift(rest, report, (PREFIX,), ())
    report.close()
    holes: dict[str, Hole] = {}
    for value in all_values({k: v for k, v in lifted.items() if k != "about"}):
        if isinstance(value, Ref | Expr):
            report.error("reference", f"a recipe has no names to look up, as in {value}", value.written)
        elif isinstance(value, Hole) and value is not BROKEN:
            holes.setdefault(value.name, value)
            if value.path[1] in NO_RESULT:
                text = f"'{value.path[1]}' changes no result, so there is nothing to search"
                report.error("hole", text, value.written, hint="write a value")
    report.close()
    space = RecipeSpace(document.tree, holes, lifted, document.locs)
    space.filled({})
    for name, hole in holes.items():
        for answer in hole.labels if hole.kind == "choice" else (hole.low, hole.high):
            space.filled({**space.middle(), name: answer})
    return space


def _meet(value: Any, ask: Callable[[Hole], Any], answers: dict[str, Any]) -> None:
    if isinstance(value, Hole):
        answers[value.name] = answer = ask(value)
        if value.kind == "choice":
            _meet(value.options[value.index(answer)], ask, answers)
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _meet(part, ask, answers)


def _middle(hole: Hole) -> Any:
    if hole.kind == "choice":
        return hole.labels[0]
    if hole.kind == "int":
        steps = (int(hole.high) - int(hole.low)) // hole.step
        return int(hole.low) + steps // 2 * hole.step
    return (hole.low * hole.high) ** 0.5 if hole.kind == "log" else (hole.low + hole.high) / 2
