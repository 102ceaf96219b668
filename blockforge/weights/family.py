"""Official layouts: whose names a file of weights has, and what each of our tensors is there."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from blockforge.errors import WeightsError
from blockforge.plugins import Registry, is_ours, plugin_code
from blockforge.weights.mismatch import some


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
        out_norm: what its dense backbones have behind each map, as a value of the option `out_norm`.
        counts_through: whether it counts layers through all stages: `sources` is then asked as if all layers of a
            network stood in stage 0.
    """

    name: str
    matches: Callable[[set[str]], bool]
    sources: Callable[[str], tuple[str, ...] | None]
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    computed: Callable[[str], bool] = lambda key: False
    out_norm: str | Mapping[str, Any] = "layer_norm"
    counts_through: bool = False

    def sources_in(self, ours: Iterable[str]) -> Callable[[str], tuple[str, ...] | None]:
        """`sources` for the keys of one network, all of which are `ours`."""
        if not self.counts_through:
            return self.sources
        layers = sorted({(int(m[1]), int(m[2])) for key in ours if (m := _LAYER.match(key))})
        places = {f"stages.{stage}.layers.{layer}.": i for i, (stage, layer) in enumerate(layers)}

        def sources(key: str) -> tuple[str, ...] | None:
            match = _LAYER.match(key)
            place = places.get(match[0]) if match else None
            return self.sources(f"stages.0.layers.{place}.{key[match.end() :]}" if match and place is not None else key)

        return sources


_LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)\.")

FAMILIES: Registry[Family] = Registry("blockforge.weights", "weight layout", "blockforge.weights.layouts")
"""Every layout that is known; ours are one file each in `layouts`."""


def register(family: Family) -> Family:
    """Add a family's layout."""
    module = family.matches.__module__
    if not is_ours(module):
        family = dataclasses.replace(
            family, matches=_guarded(family, "matches"), sources=_guarded(family, "sources"),
            prepare=_guarded(family, "prepare"), computed=_guarded(family, "computed"),
        )  # fmt: skip
    FAMILIES.add(family.name, family, module)
    return family


def _guarded(family: Family, name: str) -> Callable[..., Any]:
    """A function of a plugin's layout, whose failure is told as the plugin's."""
    function: Callable[..., Any] = getattr(family, name)

    @functools.wraps(function)
    def guarded(argument: Any) -> Any:
        with plugin_code(f"{name} of the weight layout '{family.name}'", function.__module__, WeightsError):
            return function(argument)

    return guarded


def family_of(state: Mapping[str, Any]) -> Family:
    """The family whose layout these official keys are. Raises: WeightsError if there is none."""
    family = next((f for f in FAMILIES.values() if f.matches(set(state))), None)
    if family is not None:
        return family
    begin = some(dict.fromkeys(f"{key.partition('.')[0]}." for key in state), 6)
    raise WeightsError(
        f"no known layout has these {len(state)} names: {some(state)}; they begin with {begin}\n"
        f"  hint: --prefix P takes the part of a larger model whose names begin with P, --key K what stands at a key. "
        f"Known families: {', '.join(FAMILIES)}"
    )
