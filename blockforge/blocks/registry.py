"""The blocks that specs may name. A block registers itself with its kind's decorator:

    @mixer("sam")
    class SAM(Mixer): ...

Files under `blocks/` are found by their place; third parties use the entry-point group `blockforge.blocks`
or a plugin file that the user names (`--plugin`). A YAML file alone never imports code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from blockforge.blocks import base
from blockforge.blocks.params import ParamsError, explained
from blockforge.blocks.part import Join, Part
from blockforge.errors import OpError, PluginError, did_you_mean
from blockforge.plugins import Registry, load_plugin, load_plugins, plugin_code, plugins

__all__ = [
    "BLOCKS", "ParamsError", "PluginError", "act", "aggregator", "blocks", "downsample", "ffn", "get", "head", "join",
    "load_blocks", "load_plugin", "load_plugins", "make", "mixer", "norm", "part", "plugins", "stem", "twin",
]  # fmt: skip

BLOCKS: Registry[type[base.AnyOp]] = Registry("blockforge.blocks", "block", "blockforge.blocks", in_specs=True)
TWINS: dict[str, dict[base.Kind, type[base.AnyOp]]] = {}
"""Blocks that share their name with one of another kind, which does the same: see `twin`."""
T = TypeVar("T", bound=type[base.AnyOp])


def _register(name: str, cls: type[base.AnyOp]) -> None:
    if not cls.__doc__:
        raise PluginError(f"block '{name}' ({cls.__module__}) has no docstring")
    BLOCKS.add(name, cls, cls.__module__)
    cls.op = name


def _decorator(kind: type[base.AnyOp]) -> Callable[[str], Callable[[T], T]]:
    def named(name: str) -> Callable[[T], T]:
        def register(cls: T) -> T:
            if not issubclass(cls, kind):
                raise PluginError(f"block '{name}' ({cls.__module__}) must derive from {kind.__name__}")
            _register(name, cls)
            return cls

        return register

    return named


mixer = _decorator(base.Mixer)
ffn = _decorator(base.FFN)
norm = _decorator(base.Norm)
act = _decorator(base.Act)
stem = _decorator(base.Stem)
downsample = _decorator(base.Downsample)
aggregator = _decorator(base.Aggregator)
head = _decorator(base.Head)
part = _decorator(Part)
join = _decorator(Join)


def twin(name: str) -> Callable[[T], T]:
    """Registers a block beside one of the same name that does the same: it is the one where its kind is asked for."""

    def register(cls: T) -> T:
        TWINS.setdefault(name, {})[cls.kind] = cls
        cls.op = name
        return cls

    return register


def load_blocks() -> None:
    """Import every block file of the package and every installed plugin, once."""
    BLOCKS.load()


def blocks(*kinds: base.Kind) -> dict[str, type[base.AnyOp]]:
    """The registered blocks by name, of the given kinds or of all."""
    by_name = {n: c for n, c in BLOCKS.items() if not kinds or c.kind in kinds}
    twins = [(n, c) for n, alike in TWINS.items() for kind, c in alike.items() if kind in kinds]
    return dict(sorted([*by_name.items(), *twins], key=lambda item: item[0]))


def get(name: str, *kinds: base.Kind) -> type[base.AnyOp]:
    """The block class called `name`.

    Raises: OpError if there is none, or if it is of another kind than those asked for.
    """
    cls = BLOCKS.get(name)
    if (alike := TWINS.get(name)) is not None:
        cls = next((alike[kind] for kind in kinds if kind in alike), cls)
    if cls is not None and (not kinds or cls.kind in kinds):
        return cls
    wanted = " or ".join(kinds) or "block"
    if cls is None:
        hint = did_you_mean(name, blocks(*kinds), what=f"known {'s, '.join(kinds) or 'block'}s")
        raise OpError(
            f"no {wanted} named '{name}'", hint=hint, param="op", code=f"unknown-{kinds[0] if kinds else 'block'}"
        )
    hint = f"known: {', '.join(blocks(*kinds))}"
    text = f"'{name}' is {_article(cls.kind)} {cls.kind}, not {_article(kinds[0])} {wanted}"
    raise OpError(text, hint=hint, param="op", code="wrong-kind")


def _article(kind: base.Kind) -> str:
    return "an" if kind in ("act", "aggregator", "ffn") else "a"


_MADE: dict[Any, base.AnyOp] = {}


def make(name: str, params: Mapping[str, Any], *kinds: base.Kind) -> base.AnyOp:
    """The block `name` with these parameters; equal calls share one object.

    Raises: OpError for an unknown name, ParamsError for parameters that are unknown or do not validate.
    """
    flat = [(k, v.__class__, v if v.__class__ in _SCALARS else _frozen(v)) for k, v in params.items()]
    key: Any = (name, kinds, *flat)
    if (made := _MADE.get(key)) is not None:
        return made
    cls = get(name, *kinds)
    with plugin_code(f"block '{name}'", cls.__module__, functools.partial(OpError, code="plugin")):
        try:
            op = cls.model_validate(dict(params))
        except ValidationError as e:
            raise ParamsError(explained(cls, e.errors(), params)) from None
    if len(_MADE) > 50_000:  # a long search must not grow without bound
        _MADE.clear()
    _MADE[key] = op
    return op


_SCALARS = (int, str, bool, float, type(None))


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((k, _frozen(v)) for k, v in sorted(value.items(), key=lambda item: (str(item[0]), repr(item[0]))))
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    return (type(value).__name__, value)  # 1, 1.0 and True are different parameters
