"""Connection rules: which earlier layers of a stage feed which layer.

A rule is a small pydantic model with one method. `-1` stands for the stage's input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from blockforge.described import Described
from blockforge.errors import OpError, Path, PluginError, did_you_mean
from blockforge.plugins import Registry, defined_in, plugin_code
from blockforge.spec.schema_errors import shown

STAGE_INPUT = -1
MAX_EDGES = 10_000
"""Of one stage: about a dense stage of 140 layers."""
Index = Annotated[int, Field(ge=0, le=1000)]
Feeds = dict[int, tuple[int, ...]]
"""Receiving layer -> the layers that it receives, in the order the aggregator sees them."""


class RuleError(OpError):
    """All that does not fit in one rule, each with its path inside it."""

    def __init__(self, errors: list[tuple[Path, OpError]]) -> None:
        super().__init__("; ".join(str(e) for _, e in errors))
        self.errors = errors


class Rule(Described):
    """Base of connection rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    rule: ClassVar[str]

    def sources(self, depth: int, first_stage: bool) -> Feeds:
        """Who feeds whom in a stage of `depth` layers.

        Raises: RuleError where the rule does not fit.
        """
        raise NotImplementedError


RULES: Registry[type[Rule]] = Registry("blockforge.connect", "rule", in_specs=True)


def rule(name: str) -> Callable[[type[Rule]], type[Rule]]:
    """Register a connection rule. Raises: PluginError for no name, or what is no `Rule` with a docstring."""
    RULES.check_name(name)

    def register(cls: type[Rule]) -> type[Rule]:
        if not (isinstance(cls, type) and issubclass(cls, Rule)):
            raise PluginError(f"rule '{name}' ({cls.__module__}) does not derive from Rule")
        if not cls.__doc__:
            raise PluginError(f"rule '{name}' ({cls.__module__}) has no docstring")
        RULES.add(name, cls, cls.__module__)
        cls.rule = name
        return cls

    return register


def make_rule(name: str, params: Mapping[str, Any]) -> Rule:
    """The rule called `name`. Raises: OpError for an unknown name, ValidationError for its parameters."""
    if name not in RULES:
        raise OpError(f"no rule named '{name}'", hint=did_you_mean(name, RULES, "rules"), code="unknown-rule")
    return RULES[name].model_validate(dict(params))


def fed_by(rule: Rule, depth: int, first_stage: bool) -> Feeds:
    """Who feeds whom, as a rule says.

    Raises: OpError, of which RuleError is one, where the rule does not fit, or where it is wrong itself.
    """
    name, module = f"the rule '{rule.rule}'", type(rule).__module__
    with plugin_code(name, module, functools.partial(OpError, code="plugin")):
        feeds = rule.sources(depth, first_stage)
        if (wrong := _wrong(feeds, depth)) is not None:
            text = f"{name} ({defined_in(module)}) gives {wrong}"
            hint = "sources() gives a mapping: layer -> the layers before it that it receives, -1 the stage's input"
            raise OpError(text, hint=hint, code="plugin")
        _bound(sum(map(len, feeds.values())))
    return feeds


def _given(value: Any) -> str:
    """What a rule gives, which is Python and no YAML."""
    return "None" if value is None else shown(value)


def _wrong(feeds: Any, depth: int) -> str | None:
    """What is no answer of a rule; None: all is right."""
    if not isinstance(feeds, Mapping):
        return _given(feeds)
    for layer, sources in feeds.items():
        if not _is_layer(layer) or not 0 <= layer < depth:
            return f"something to {shown(layer)}, of layers 0 to {depth - 1}"
        if not isinstance(sources, tuple | list) or not sources:
            return f"{_given(sources)} to layer {layer}"
        if (wrong := next((s for s in sources if not _is_layer(s) or not STAGE_INPUT <= s < layer), None)) is not None:
            return f"{shown(wrong)} to layer {layer}, which receives from {STAGE_INPUT} to {layer - 1}"
        if len(set(sources)) < len(sources):
            return f"one layer twice to layer {layer}: {shown(list(sources))}"
    return None


def _is_layer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or_all(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for both forms of a window."""
    try:
        return handler(value)
    except ValidationError:
        text = "this should be a whole number from 1 to 1000, or all, not {value}"
        raise PydanticCustomError("window", text, {"value": shown(value)}) from None


@rule("sparx")
class SparX(Rule):
    """Sparse cross-layer connections (SparX, AAAI 2025, section 3): ganglion layers at a stride, each seeing
    the normal layers since the previous ganglion layer and the last `window` ganglion layers."""

    stride: Annotated[int, Field(ge=1, le=1000)]
    """Distance between ganglion layers, counted back from the stage's last layer (the paper's S)."""
    window: Annotated[Annotated[int, Field(ge=1, le=1000)] | Literal["all"], WrapValidator(_or_all)] = "all"
    """How many earlier ganglion layers each one sees (the paper's M); all: no limit (the paper's DGC)."""
    start: Index = 0
    """No ganglion layer stands before this index."""

    def sources(self, depth: int, first_stage: bool) -> Feeds:
        ganglion = [i for i in range(depth) if (depth - 1 - i) % self.stride == 0 and i >= self.start]
        window = len(ganglion) if self.window == "all" else self.window
        _bound(depth + len(ganglion) * min(window, len(ganglion)) // 2)
        feeds: Feeds = {}
        previous = -1
        for order, layer in enumerate(ganglion):
            entry = (STAGE_INPUT,) if order == 0 and not first_stage else ()
            normal = range(previous + 1, layer)
            seen = ganglion[max(0, order - window) : order]
            if sources := (*entry, *normal, *seen):
                feeds[layer] = sources
            previous = layer
        return feeds


@rule("dense")
class Dense(Rule):
    """Every layer receives every earlier layer (the dense variant DSN that SparX compares with)."""

    start: Index = 1
    """The first layer that receives."""

    def sources(self, depth: int, first_stage: bool) -> Feeds:
        first = max(1, self.start)
        _bound((depth - first) * (depth + first - 1) // 2)
        return {i: tuple(range(i)) for i in range(first, depth)}


@rule("edges")
class Edges(Rule):
    """Free form: a list of [from, to] layer indices. An aggregator sees its sources in the order listed."""

    edges: Annotated[
        list[Annotated[list[int], Field(min_length=2, max_length=2)]],
        Field(min_length=1, max_length=MAX_EDGES),
    ]
    """[from, to] pairs of layers, counted from 0 inside the stage; from -1 is the stage's input."""

    def sources(self, depth: int, first_stage: bool) -> Feeds:
        by_target: dict[int, dict[int, None]] = {}
        errors: list[tuple[Path, OpError]] = []
        for i, (source, target) in enumerate(self.edges):
            text, hint = None, f"layers are 0 to {depth - 1}; -1 is the stage's input"
            if not STAGE_INPUT <= source < depth or not 0 <= target < depth:
                text = f"the edge [{source}, {target}] leaves the stage, which has {depth} layers"
            elif source >= target:
                text, hint = f"the edge [{source}, {target}] does not lead forward", "write [earlier, later]"
            elif source in by_target.setdefault(target, {}):
                text, hint = f"the edge [{source}, {target}] is listed twice", "list each edge once"
            if text is None:
                by_target[target][source] = None
            else:
                errors.append((("edges", i), OpError(text, hint=hint, code="connect")))
        if errors:
            raise RuleError(errors)
        return {target: tuple(by_target[target]) for target in sorted(by_target)}


def _bound(edges: int) -> None:
    if edges > MAX_EDGES:
        text = f"this rule gives about {edges} edges; {MAX_EDGES} are allowed in a stage"
        error = OpError(text, hint="a larger stride, a smaller window, or fewer layers", code="limit")
        raise RuleError([(("rule",), error)])
