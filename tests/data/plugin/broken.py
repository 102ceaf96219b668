"""Code of a third party that fails in every way that one can think of, as a plugin file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from blockforge.blocks.base import Cost, Mixer, Norm, Shape
from blockforge.blocks.registry import mixer, norm
from blockforge.compiler.graph.connect import Rule, rule
from blockforge.train.data import Opened
from blockforge.train.opening import source
from blockforge.weights.family import Family, register


def fails(*_: Any) -> Any:
    return {}["no such key"]


def leaves(*_: Any) -> Any:
    raise SystemExit(3)


def is_extra(keys: set[str]) -> bool:
    return "broken_layout" in keys and fails()


FEEDS: dict[str, Any] = {
    "to_nobody": {99: (0,)},
    "backwards": {0: (1,)},
    "in_words": {1: "0"},
    "twice": {1: (0, 0)},
    "in_parts": {1: (0.0,)},
    "alone": {1: 0},
    "named": {"last": (0,)},
    "nothing": None,
}
for name in FEEDS:

    class Feeds(Rule):
        """A rule with a wrong answer."""

        def sources(self, depth: int, first_stage: bool) -> Any:
            return FEEDS[self.rule]

    rule(name)(Feeds)


@rule("failing")
class Failing(Rule):
    """A rule that fails."""

    def sources(self, depth: int, first_stage: bool) -> Any:
        return fails()


@rule("leaving")
class Leaving(Rule):
    """A rule that ends Python."""

    def sources(self, depth: int, first_stage: bool) -> Any:
        return leaves()


class _Broken(Mixer):
    def cost(self, shape: Shape) -> Any:
        return Cost()

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> Any:
        return nn.Identity()


def broken(name: str, **methods: Callable[..., Any]) -> None:
    mixer(name)(type(name, (_Broken,), {"__doc__": "A block that is wrong.", "__module__": __name__, **methods}))


class _BrokenNorm(Norm):
    """A norm that is wrong."""

    def cost(self, shape: Shape) -> Any:
        return Cost()

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> Any:
        return fails()


norm("norm_fails")(_BrokenNorm)
broken("cost_fails", cost=fails)
broken("cost_is_none", cost=lambda self, shape: None)
broken("check_leaves", check=leaves)
broken("shape_is_a_list", out_shape=lambda self, shape: list(shape))
broken("build_fails", build=fails)
broken("builds_nothing", build=lambda self, shape: None)

OPENERS: dict[str, Callable[..., Any]] = {
    "fails": fails,
    "gives_none": lambda rest, options: None,
    "without_images": lambda rest, options: Opened(["a", "b"], None),  # type: ignore[arg-type]
    "one_name": lambda rest, options: Opened("ab", None),  # type: ignore[arg-type]
    "no_classes": lambda rest, options: Opened(None, None),  # type: ignore[arg-type]
}


class Torn:
    """Images whose reading fails behind the first batch, or that are no batches."""

    crops = False

    def __init__(self, *batches: Any) -> None:
        self.given = batches

    def __len__(self) -> int:
        return 2

    def batches(self, want: Any) -> Any:
        yield from self.given
        fails()

    def statistics(self, channels: int | None = None) -> Any:
        return fails()

    def digest(self) -> str:
        return "torn"


BATCH = (torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))
OPENERS["torn"] = lambda rest, options: Opened(["a", "b"], Torn(BATCH), Torn(BATCH))
OPENERS["no_pairs"] = lambda rest, options: Opened(["a", "b"], Torn(1), Torn(1))
for name, opener in OPENERS.items():
    source(name, name)(opener)

register(Family("broken", is_extra, fails))
