"""Load a checkpoint in its family's official layout: unwrap it, find the family, map every tensor."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockforge.errors import WeightsError
from blockforge.weights.misfit import MisfitError, OtherShape, check, looks_ours, some

if TYPE_CHECKING:
    from blockforge.compiler.backbone import Backbone

_WRAPPERS = ("model", "state_dict", "model_state", "module", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_COMPUTED = ("num_batches_tracked",)
"""Buffers that count for nothing in evaluation; a checkpoint may lack them."""


@dataclass(frozen=True)
class Family:
    """The official layout of a family.

    Attributes:
        name: the family.
        matches: whether a set of official keys is of this family.
        sources: our key -> the official keys it is made of, in order (several are stacked along the first
            axis); None: the key is not of this layout.
        prepare: official tensors in another arrangement under other keys, where stacking is not enough
            (a fused tensor split, an axis moved).
        computed: official buffers that a constructor computes and ours do without.
    """

    name: str
    matches: Callable[[set[str]], bool]
    sources: Callable[[str], tuple[str, ...] | None]
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    computed: Callable[[str], bool] = lambda key: False


FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Add a family's layout."""
    assert family.name not in FAMILIES, family.name
    FAMILIES[family.name] = family
    return family


def families() -> dict[str, Family]:
    """Every layout that is known: one file each in this package."""
    import blockforge.weights as package

    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    return FAMILIES


def family_of(state: Mapping[str, Any]) -> Family:
    """The family whose layout these official keys are. Raises: WeightsError if there is none."""
    known = families()
    found = next((f for f in known.values() if f.matches(set(state))), None)
    if found is not None:
        return found
    begin = some(dict.fromkeys(f"{key.partition('.')[0]}." for key in state), 6)
    raise WeightsError(
        f"no known layout has these {len(state)} names: {some(state)}; they begin with {begin}\n"
        f"  hint: a larger model's checkpoint must be cut to its backbone. Known families: {', '.join(known)}"
    )


def load_official(model: Backbone, state_dict: Mapping[str, Any]) -> None:
    """Copy an official checkpoint into `model`.

    Raises: WeightsError if the layout is unknown, a tensor is missing, left over or of another shape; the
    model is then unchanged.
    """
    state = unwrap(state_dict)
    model.load_state_dict(convert(model.state_dict(), state, family_of(state)))


def with_our_names(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, surplus: bool = True
) -> Mapping[str, Tensor]:
    """A checkpoint under our names: one in an official layout is converted.

    Args:
        own: the state dict of a network that the weights may be of.
        surplus: whether official tensors that the network has no place for are wrong.
    Raises: WeightsError if the layout is unknown or does not fit; what has our names is given as it is.
    """
    if 2 * len(own.keys() & tensors.keys()) >= len(own) or looks_ours(tensors):
        return tensors
    return convert(own, tensors, family_of(tensors), surplus=surplus)


def convert(
    ours: Mapping[str, Tensor], official: Mapping[str, Tensor], family: Family, *, surplus: bool = True
) -> dict[str, Tensor]:
    """Our state dict with the values of an official one.

    Args:
        ours: the state dict of the model; its values matter only for counters that the checkpoint lacks.
        official: unwrapped, in the layout of `family`.
        surplus: whether tensors that the network has no place for are wrong.
    Raises: WeightsError as `load_official`.
    """
    sources = {key: family.sources(key) or () for key in ours}
    if homeless := [key for key, names in sources.items() if not names]:
        raise MisfitError(
            f"the weights are in the official layout of {family.name}, and the network is another family's: "
            f"{len(homeless)} of its {len(ours)} tensors have no counterpart there ({some(homeless)})"
        )
    official = _prepared({k: v for k, v in official.items() if not family.computed(k)}, family)
    wanted = {name: key for key, names in sources.items() for name in names}
    missing = [name for name, key in wanted.items() if name not in official and not key.endswith(_COMPUTED)]
    converted: dict[str, Tensor] = {}
    shapes: list[OtherShape] = []
    for key, own in ours.items():
        parts = [official[name] for name in sources[key] if name in official]
        if len(parts) < len(sources[key]):
            converted[key] = own  # a counter; another one is missing
            continue
        held = _stacked_shape(parts)
        if held is None or _squeezed(held) != _squeezed(own.shape):
            held = held or tuple(parts[0].shape)
            shapes.append(OtherShape(" + ".join(sources[key]), held, key, tuple(own.shape)))
        else:
            value = torch.cat(parts) if len(parts) > 1 else parts[0]
            converted[key] = value.reshape(own.shape).to(own.dtype)
    left = [name for name in official if name not in wanted] if surplus else []
    check(wanted, official, missing, left, shapes)
    return converted


def _prepared(official: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    try:
        return family.prepare(official)
    except (IndexError, RuntimeError, TypeError, ValueError) as e:  # it splits and moves tensors as they should be
        raise WeightsError(f"the tensors are not of the shapes that {family.name}'s layout has: {e}") from None


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that may be wrapped in `model`, `state_dict` or have prefixes."""
    return without_prefixes(tensors_in(checkpoint))


def tensors_in(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that may be wrapped. Raises: WeightsError if there are none."""
    state: Any = checkpoint
    for _ in range(4):
        inner = next((state[k] for k in _WRAPPERS if isinstance(state.get(k), Mapping)), None)
        if inner is None:
            break
        state = inner
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        keys = some([str(key) for key in state], 8) or "none"
        raise WeightsError(
            f"the checkpoint holds no tensors; its keys: {keys}\n"
            f"  hint: tensors are looked for by name at its top, or in {', '.join(_WRAPPERS)}"
        )
    return tensors


def without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what wrappers put before every name."""
    for prefix in _PREFIXES * 2:
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


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
