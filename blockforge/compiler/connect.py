"""Connection rules: which earlier layers of a stage feed which layer.

A rule is a small pydantic model with one method. `-1` stands for the stage's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from blockforge.errors import OpError, did_you_mean

STAGE_INPUT = -1
Index = Annotated[int, Field(ge=0, le=1000)]


class Rule(BaseModel):
    """Base of connection rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
    rule: ClassVar[str]

    def sources(self, depth: int, first_stage: bool) -> dict[int, tuple[int, ...]]:
        """Receiving layer -> the layers that it receives, in the order the aggregator sees them.

        Raises: OpError where the rule does not fit `depth` layers.
        """
        raise NotImplementedError


RULES: dict[str, type[Rule]] = {}


def rule(name: str) -> Callable[[type[Rule]], type[Rule]]:
    """Register a connection rule."""

    def register(cls: type[Rule]) -> type[Rule]:
        assert name not in RULES, name
        cls.rule = name
        RULES[name] = cls
        return cls

    return register


def make_rule(name: str, params: Mapping[str, Any]) -> Rule:
    """The rule called `name`. Raises: OpError for an unknown name, ValidationError for its parameters."""
    if name not in RULES:
        raise OpError(f"no rule named '{name}'", hint=did_you_mean(name, RULES, "rules"), code="unknown-rule")
    return RULES[name].model_validate(dict(params))


@rule("sparx")
class SparX(Rule):
    """Sparse cross-layer connections (SparX, AAAI 2025, section 3): ganglion layers at a stride, each seeing
    the normal layers since the previous ganglion layer and the last `window` ganglion layers."""

    stride: Annotated[int, Field(ge=1, le=1000)]
    """Distance between ganglion layers, counted back from the stage's last layer (the paper's S)."""
    window: Annotated[int, Field(ge=1, le=1000)] | Literal["all"] = "all"
    """How many earlier ganglion layers each one sees (the paper's M); all: no limit (the paper's DGC)."""
    start: Index = 0
    """No ganglion layer stands before this index."""

    def sources(self, depth: int, first_stage: bool) -> dict[int, tuple[int, ...]]:
        ganglion = [i for i in range(depth - 1, -1, -1) if (depth - 1 - i) % self.stride == 0 and i >= self.start][::-1]
        found: dict[int, tuple[int, ...]] = {}
        previous = -1
        for order, layer in enumerate(ganglion):
            normal = tuple(range(previous + 1, layer))
            entry = (STAGE_INPUT,) if order == 0 and not first_stage else ()
            seen = ganglion[:order] if self.window == "all" else ganglion[max(0, order - self.window) : order]
            if sources := (*entry, *normal, *seen):
                found[layer] = sources
            previous = layer
        return found


@rule("dense")
class Dense(Rule):
    """Every layer receives every earlier layer (the dense variant DSN that SparX compares with)."""

    start: Index = 1
    """The first layer that receives."""

    def sources(self, depth: int, first_stage: bool) -> dict[int, tuple[int, ...]]:
        return {i: tuple(range(i)) for i in range(max(1, self.start), depth)}


@rule("edges")
class Edges(Rule):
    """Free form: a list of [from, to] layer indices; `-1` is the stage's input."""

    edges: Annotated[list[Annotated[list[int], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=10_000)]
    """[from, to] pairs, counted from 0 inside the stage."""

    def sources(self, depth: int, first_stage: bool) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {}
        for source, target in self.edges:
            if not STAGE_INPUT <= source < target < depth:
                raise OpError(
                    f"the edge [{source}, {target}] does not fit: layers are 0 to {depth - 1}, and edges lead forward",
                    param="edges",
                    code="connect",
                )
            if source in found.setdefault(target, []):
                raise OpError(f"the edge [{source}, {target}] is listed twice", param="edges", code="connect")
            found[target].append(source)
        return {t: tuple(sorted(s)) for t, s in sorted(found.items())}
