"""Examples for every kind of block: places to stand, inputs to run on, and variations of the parameters."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from blockforge.blocks import registry
from blockforge.blocks.base import Act, AnyOp, Kind, Op, Place, Placed, Shape
from blockforge.blocks.maps import Maps
from blockforge.blocks.measured import example_maps
from blockforge.errors import OpError
from blockforge.testing.measure import randomise

AnyPlace = tuple[Any, ...]
"""The arguments of a block's methods, as `blockforge.blocks.base` lists them for each kind."""

_MAPS: tuple[AnyPlace, ...] = ((Shape(7, 5, 24),), (Shape(6, 11, 60),), (Shape(13, 18, 64),))
_PLACES: dict[Kind, tuple[AnyPlace, ...]] = {
    "mixer": _MAPS,
    "ffn": _MAPS,
    "norm": _MAPS,
    "act": _MAPS,
    "stem": ((Shape(33, 47, 3), 24), (Shape(64, 40, 1), 60), (Shape(62, 83, 3), 64)),
    "downsample": (
        (Shape(7, 5, 24), 24),
        (Shape(12, 9, 60), 120),
        (Shape(23, 30, 64), 128),
        (Shape(6, 5, 24, extra=2), 48),
    ),
    "aggregator": (
        (Shape(7, 5, 24), (24,), 24),
        (Shape(6, 11, 60), (60, 60), 120),
        (Shape(13, 18, 64), (64, 64, 64), 64),
    ),
    "part": (
        (Shape(7, 5, 24), None),
        (Shape(6, 11, 60), 120),
        (Shape(13, 18, 64), None),
        (Shape(6, 4, 24, extra=2), None),
    ),
    "join": (
        ((Shape(7, 5, 24), Shape(7, 5, 24)), None),
        ((Shape(6, 11, 60), Shape(6, 11, 60), Shape(6, 11, 60)), None),
        ((Shape(5, 4, 96),), None),
        ((Shape(13, 18, 64), Shape(1, 1, 64)), None),
        ((Shape(6, 4, 24, extra=2), Shape(6, 4, 24, extra=2)), None),
    ),
    "head": ((Shape(7, 5, 24), 10), (Shape(3, 8, 60), 0), (Shape(13, 18, 64), 100)),
}


def example_places(kind: Kind) -> tuple[AnyPlace, ...]:
    """Places for blocks of a kind: not square, odd sides among them, widths of many divisors, small first; extra tokens
    stand beside some."""
    return _PLACES[kind]


def accepts(op: Op[*Place], *place: *Place) -> bool:
    """Whether the block can stand there."""
    try:
        op.check(*Placed(op, place).told)
    except OpError:
        return False
    return True


def build_on_maps(op: Op[*Place], *place: *Place) -> nn.Module:
    """The block's module on x_BHWC, whatever its layout."""
    module = op.build(*place)
    return Maps(module) if op.layout == "NCHW" else module


def example_inputs(
    kind: Kind, *place: *Place, batch: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Any, ...]:
    """Noise for the module of a block at a place: `(x_BHWC,)`, for an aggregator `(x_BHWC, sources)`, for a join its
    maps."""
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: Shape) -> Tensor:
        return torch.randn(batch, *shape.row, generator=generator).to(dtype)

    return example_maps(kind, place, noise)


def example_module(op: Op[*Place], *place: *Place, seed: int = 0) -> nn.Module:
    """The block's module on x_BHWC in evaluation mode, off its initial values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return randomise(build_on_maps(op, *place), seed).eval()


def expected_shape(op: Op[*Place], place: tuple[*Place], batch: int) -> tuple[int, ...]:
    """Of the tensor that the block's module gives."""
    shape = op.out_shape(*place)
    return (batch, shape.dim) if op.kind == "head" else (batch, *shape.row)


def flat(inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The tensors of example inputs, an aggregator's sources one by one."""
    return tuple(t for given in inputs for t in (given if isinstance(given, list) else [given]))


def variants(cls: type[AnyOp]) -> Iterator[AnyOp]:
    """The block with its defaults, then with each parameter varied in turn.

    A value that no example place accepts goes with the first value of another parameter that makes it fit.
    """
    yield cls()
    for name in cls.model_fields:
        for value in field_values(cls, name):
            others = ({other: v} for other in cls.model_fields if other != name for v in field_values(cls, other))
            tried = (_instance(cls, {name: value, **more}) for more in itertools.chain([{}], others))
            if (fits := next((op for op in tried if op is not None and _fits(op)), None)) is not None:
                yield fits


def _fits(op: AnyOp) -> bool:
    return any(accepts(op, *place) for place in example_places(op.kind))


def _instance(cls: type[AnyOp], params: dict[str, Any]) -> AnyOp | None:
    try:
        return cls.model_validate(params)
    except ValidationError:
        return None


def field_values(cls: type[AnyOp], name: str) -> list[Any]:
    """Small valid values of one parameter other than its default, found from its type."""
    default = getattr(cls(), name)
    values = []
    for value in _candidates(cls.model_fields[name].annotation):
        instance = _instance(cls, {name: value})
        if instance is not None and getattr(instance, name) != default:
            values.append(value)
    return values


def _candidates(annotation: Any) -> list[Any]:
    """A few values of a type; none for a type of which nothing is known."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _candidates(get_args(annotation)[0])
    if origin is Literal:
        return list(get_args(annotation))
    if origin in (Union, types.UnionType):
        return [v for part in get_args(annotation) for v in _candidates(part)]
    if origin is tuple and Ellipsis not in get_args(annotation):
        parts = [_candidates(part) for part in get_args(annotation)]
        return [tuple(of_part[(i + 2 * j) % len(of_part)] for j, of_part in enumerate(parts)) for i in (0, 1)]
    if annotation is types.NoneType:
        return [None, "none"]
    if isinstance(annotation, type) and issubclass(annotation, Act):
        return _activations()
    if isinstance(annotation, type) and issubclass(annotation, Op):
        return [cls() for cls in registry.blocks(annotation.kind).values()]
    known: dict[Any, list[Any]] = {bool: [False, True], int: [1, 2, 3, 4, 5], float: [0.5, 1.0, 1.5, 3.0]}
    return known.get(annotation, [])


def _activations() -> list[Act]:
    """One of each sort, as costs tell them apart."""
    at, acts = Shape(1, 1, 1), [cls() for cls in registry.blocks("act").values()]
    sorts = {(a.overwrites, a.workspace(at), a.cost(at)): a for a in acts if isinstance(a, Act)}
    return list(sorts.values())
