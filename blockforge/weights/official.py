"""Load a checkpoint in its family's official layout: unwrap it, find the family, map every tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockforge.errors import WeightsError
from blockforge.notes import note
from blockforge.weights import wrappers
from blockforge.weights.differences import NONE, AllowedDifferences, allowed_differences
from blockforge.weights.family import FAMILIES, Family, family_of
from blockforge.weights.mismatch import MismatchError, OtherShape, check, check_ours, looks_ours, some
from blockforge.weights.resize import Resize, resized_in_words, resized_to, resizers
from blockforge.weights.values import check_kinds, check_value

if TYPE_CHECKING:
    from blockforge.compiler.lowering.backbone import Backbone

_COMPUTED = ("num_batches_tracked",)
"""Buffers that count for nothing in evaluation; a checkpoint may lack them."""


def load_official(
    model: Backbone, state_dict: Mapping[str, Any], key: str | None = None, prefix: str | None = None
) -> None:
    """Copy an official checkpoint into `model`.

    Args:
        key, prefix: which of its tensors, see `unwrap`.
    Raises: WeightsError if the layout is unknown, a tensor is missing, left over or of another shape; the
    model is then unchanged.
    """
    state = unwrap(state_dict, key, prefix)
    own = model.state_dict()
    model.load_state_dict({**own, **_of_family(state, own, allowed_differences(model), resizers(model))})


def fitted(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    allowed: AllowedDifferences = NONE,
    resize: Mapping[str, Resize] | None = None,
) -> Mapping[str, Tensor]:
    """What a network takes of a checkpoint, under our names: one in an official layout is converted.

    Args:
        own: the state dict of the network.
        allowed: what the checkpoint may hold besides, or lack; lines say so.
        resize: brings tensors of another size to the network's, see `resize`; a line says so.
    Raises: WeightsError if the layout is unknown or does not fit, or a value is no number.
    """
    if 2 * len(own.keys() & tensors.keys()) < len(own) and not looks_ours(tensors):
        return _of_family(tensors, own, allowed, resize)
    asked = allowed.asked(own, tensors.__contains__)
    for name in (name for name in asked if name in tensors):
        check_value(name, tensors[name], own[name])
    sized = {k: resized_to(v, tensors[k], k, resize or {}) for k, v in asked.items() if k in tensors}
    held = {**tensors, **_told({k: v for k, v in sized.items() if v is not None})}
    spare = [name for name in allowed.spare if name in held]
    check_ours(asked, {k: v for k, v in held.items() if k not in spare})
    norms = [name for name in spare if name in allowed.out_norms]
    _say_differences(own, asked, spare, "layer_norm", norms)
    return {name: held[name] for name in asked}


def _of_family(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    allowed: AllowedDifferences,
    resize: Mapping[str, Resize] | None,
) -> dict[str, Tensor]:
    """`fitted` of a checkpoint in an official layout."""
    family = family_of(tensors)
    sources = family.sources_in(own)

    def official(names: Sequence[str]) -> set[str]:
        return {source for name in names for source in sources(name) or ()}

    asked = allowed.asked(own, lambda name: not tensors.keys().isdisjoint(official([name])))
    spare = official(allowed.spare)
    converted = convert(asked, tensors, family, spare=spare, resize=resize)
    left = [name for name in _prepared(tensors, family) if name in spare]
    norms = official(allowed.out_norms)
    _say_differences(own, asked, left, family.out_norm, [name for name in left if name in norms])
    return converted


def _say_differences(
    own: Mapping[str, Tensor],
    asked: Mapping[str, Tensor],
    spare: Sequence[str],
    out_norm: str | Mapping[str, Any],
    norms: Sequence[str],
) -> None:
    """Name what a network leaves out of a checkpoint, output norms among it, and what it keeps as it was made."""
    if spare:
        option = "batch_norm" if any(name.endswith(".running_mean") for name in norms) else out_norm
        hint = f"; out_norm={option!r} gives the maps these norms" if norms else ""
        note(f"left out {len(spare)} tensors that the network has no place for: {some(spare, 12)}{hint}")
    if fresh := [name for name in own if name not in asked]:
        note(f"the checkpoint has no output norms: as they were made stay {some(fresh, 12)}")


def convert(
    ours: Mapping[str, Tensor],
    official: Mapping[str, Tensor],
    family: Family,
    *,
    spare: Collection[str] = (),
    resize: Mapping[str, Resize] | None = None,
) -> dict[str, Tensor]:
    """Our state dict with the values of an official one.

    Args:
        ours: the state dict of the model; its values matter only for counters that the checkpoint lacks.
        official: unwrapped, in the layout of `family`.
        spare: official tensors that may be there though the network has no place for them.
        resize: as `fitted`.
    Raises: WeightsError as `load_official`.
    """
    sources_of = family.sources_in(ours)
    sources = {key: sources_of(key) or () for key in ours}
    if homeless := [key for key, names in sources.items() if not names]:
        raise MismatchError(
            f"the weights are in the official layout of {family.name}, and the network is another family's: "
            f"{len(homeless)} of its {len(ours)} tensors have no counterpart there ({some(homeless)})"
        )
    official = _prepared(official, family)
    wanted = {name: key for key, names in sources.items() for name in names}
    missing = [name for name, key in wanted.items() if name not in official and not key.endswith(_COMPUTED)]
    converted: dict[str, Tensor] = {}
    grown: dict[str, Tensor] = {}
    shapes: list[OtherShape] = []
    for key, own in ours.items():
        parts = [official[name] for name in sources[key] if name in official]
        if len(parts) < len(sources[key]):
            converted[key] = own  # a counter; another one is missing
            continue
        held = _stacked_shape(parts)
        if len(parts) == 1 and (other := resized_to(own, parts[0], key, resize or {})) is not None:
            check_value(sources[key][0], other, own)
            grown[key] = other.to(own.dtype)
            continue
        if held is None or _squeezed(held) != _squeezed(own.shape):
            held = held or tuple(parts[0].shape)
            shapes.append(OtherShape(" + ".join(sources[key]), held, key, tuple(own.shape)))
        else:
            for name, part in zip(sources[key], parts, strict=True):
                check_value(name, part, own)
            value = torch.cat(parts) if len(parts) > 1 else parts[0]
            converted[key] = value.reshape(own.shape).to(own.dtype)
    left = [name for name in official if name not in wanted and name not in spare]
    check(wanted, official, missing, left, shapes)
    return {**converted, **_told(grown)}


def _told(resized: dict[str, Tensor]) -> dict[str, Tensor]:
    if resized:
        note(resized_in_words(list(resized)))
    return resized


def _prepared(official: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    try:
        return family.prepare({k: v for k, v in official.items() if not family.computed(k)})
    except (IndexError, RuntimeError, TypeError, ValueError) as e:  # it splits and moves tensors as they should be
        raise WeightsError(f"the tensors are not of the shapes that {family.name}'s layout has: {e}") from None


def unwrap(
    checkpoint: Any,
    key: str | None = None,
    prefix: str | None = None,
    say: Callable[[str], None] = note,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whatever they are wrapped in; see `wrappers`.

    Args:
        key: where to look in it, `model_ema`.
        prefix: what the names begin with; others are left out.
        say: is told what was chosen, where something was.
    Raises: WeightsError if there are none, if several networks are there, or if one is no weight at all.
    """
    tensors, lines = wrappers.unwrap(checkpoint, _is_known, key, prefix)
    check_kinds(tensors)
    for line in lines:
        say(line)
    return tensors


def _is_known(names: set[str]) -> bool:
    return looks_ours(names) or any(family.matches(names) for family in FAMILIES.values())


def _stacked_shape(parts: Sequence[Tensor]) -> tuple[int, ...] | None:
    """The shape of several tensors along the first axis; None: they cannot be stacked."""
    first = parts[0].shape
    if len(parts) == 1:
        return tuple(first)
    if any(not p.ndim or p.shape[1:] != first[1:] for p in parts):
        return None
    return (sum(p.shape[0] for p in parts), *first[1:])


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without axes of length 1: a 1x1 convolution's weight is a linear layer's."""
    return tuple(side for side in shape if side != 1)
