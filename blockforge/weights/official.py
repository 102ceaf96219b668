"""Load a checkpoint in its family's official layout: unwrap it, find the family, map every tensor."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockforge.errors import WeightsError, did_you_mean

if TYPE_CHECKING:
    from blockforge.compiler.backbone import Backbone

_WRAPPERS = ("model", "state_dict", "model_state", "module", "net")
_PREFIXES = ("module.", "_orig_mod.", "backbone.")
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
    if found is None:
        some = ", ".join(list(state)[:4])
        raise WeightsError(f"no official layout has these keys ({some}, ...); known families: {', '.join(known)}")
    return found


def load_official(model: Backbone, state_dict: Mapping[str, Any]) -> None:
    """Copy an official checkpoint into `model`.

    Raises: WeightsError if the layout is unknown, a tensor is missing, left over or of another shape; the
    model is then unchanged.
    """
    state = unwrap(state_dict)
    model.load_state_dict(convert(model.state_dict(), state, family_of(state)))


def convert(ours: Mapping[str, Tensor], official: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Our state dict with the values of an official one.

    Args:
        ours: the state dict of the model; its values matter only for counters that the checkpoint lacks.
        official: unwrapped, in the layout of `family`.
    Raises: WeightsError as `load_official`.
    """
    official = family.prepare({k: v for k, v in official.items() if not family.computed(k)})
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    problems: list[str] = []
    for key, own in ours.items():
        sources = family.sources(key)
        if sources is None:
            problems.append(f"{key} has no counterpart in the official layout of {family.name}")
            continue
        used.update(sources)
        missing = [s for s in sources if s not in official]
        if missing and key.endswith(_COMPUTED):
            converted[key] = own
        elif missing:
            problems.append(f"missing: {missing[0]} (for {key}); {did_you_mean(missing[0], official, 'there are')}")
        else:
            value = torch.cat([official[s] for s in sources]) if len(sources) > 1 else official[sources[0]]
            if _squeezed(value) != _squeezed(own):
                text = f"{sources[0]} is {tuple(value.shape)}, {key} is {tuple(own.shape)}"
                problems.append(f"shape: {text}")
                continue
            converted[key] = value.reshape(own.shape).to(own.dtype)
    problems += [f"left over: {k}" for k in official if k not in used]
    if problems:
        raise WeightsError(_listed(f"the checkpoint does not fit this {family.name} model", problems))
    return converted


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that may be wrapped in `model`, `state_dict` or have prefixes."""
    state: Any = checkpoint
    for _ in range(4):
        inner = next((state[k] for k in _WRAPPERS if isinstance(state.get(k), Mapping)), None)
        if inner is None:
            break
        state = inner
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"the checkpoint holds no tensors; its keys: {', '.join(map(str, list(state)[:8]))}")
    for prefix in _PREFIXES * 2:
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    """The shape without axes of length 1: a 1x1 convolution's weight is a linear layer's."""
    return tuple(s for s in tensor.shape if s != 1)


def _listed(title: str, problems: list[str], limit: int = 12) -> str:
    more = [f"  ... and {len(problems) - limit} more"] if len(problems) > limit else []
    return "\n".join([f"{title}:", *(f"  {p[:300]}" for p in problems[:limit]), *more])
