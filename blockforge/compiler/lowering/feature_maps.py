"""Which maps a model gives, and what they are."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from blockforge.errors import BlockforgeError, did_you_mean

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture


class FeatureInfo(list[dict[str, Any]]):
    """What the feature maps are: channels, reduction and module of each stage, with the methods of timm's class.
    A list, because that is what timm takes for a whole model's."""

    def __init__(self, info: list[dict[str, Any]], out_indices: Sequence[int]) -> None:
        super().__init__(info)
        self.out_indices = tuple(out_indices)

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of map `idx`, or of all that are returned."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Stride of map `idx` to the image, or of all that are returned."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Path of the module that gives map `idx`, or of all that are returned."""
        return self.get("module", idx)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """A value of map `idx`, of several, or of all that are returned."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One mapping for each map that is returned."""
        return [{k: v for k, v in self[i].items() if keys is None or k in keys} for i in self.out_indices]


def stage_indices(chosen: Any, arch: Architecture) -> tuple[int, ...]:
    """The stages that `out_indices` means, in its order: names, or indices, negative ones from the end; a number n: the
    last n of the network's features; None: all of these.

    Raises: BlockforgeError for anything else, and if no stage is named.
    """
    stages = len(arch.plan.stages)
    law = f"out_indices are 0 to {stages - 1}, or negative from the end; a number n means the last n"
    if chosen is None:
        return arch.features
    if (last := _index(chosen)) is not None:
        if not 1 <= last <= len(arch.features):
            raise BlockforgeError(f"out_indices={last} of {len(arch.features)} stages\n  hint: {law}")
        return arch.features[-last:]
    if isinstance(chosen, str | bytes) or not isinstance(chosen, Iterable):
        raise BlockforgeError(f"out_indices is a {type(chosen).__name__}\n  hint: {law}")
    indices = []
    names = {stage.name: stage.index for stage in arch.plan.stages if stage.name is not None}
    for given in chosen:
        if isinstance(given, str) and given in names:
            indices.append(names[given])
            continue
        if isinstance(given, str):
            raise BlockforgeError(f"no stage is called '{given}'\n  hint: {did_you_mean(given, names, 'names')}")
        if (index := _index(given)) is None:
            raise BlockforgeError(f"out_indices hold a {type(given).__name__}\n  hint: {law}")
        if not -stages <= index < stages:
            raise BlockforgeError(f"there is no stage {index}; {law}")
        indices.append(index % stages)
    if not indices:
        raise BlockforgeError(f"out_indices name no stage\n  hint: {law}; None: all")
    return tuple(indices)


def _index(value: Any) -> int | None:
    """A whole number, numpy's and torch's included; None: it is something else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        return None
