"""Narrower stages: the width of a stage with all that reads and writes it, as one slot.

A stage of fewer channels changes the tensors of its layers, of what leads into it and of what reads it. Which of their
entries belong to one channel is found on the whole network as for a block (`weights.symmetry`). What a block has inside
(hidden channels, heads) stays as wide as it was where one of its numbers can say so, for its own slots thin that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks.base import AnyOp, Placed
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.errors import BlockforgeError
from blockforge.spec import Spec, load
from blockforge.swapping.edits import edited
from blockforge.swapping.slots import Alternative, Slot
from blockforge.swapping.thinner import made
from blockforge.weights.symmetry import Sizes, Trial, channels_between, sizes_of

SHARES = (0.75, 0.5)
"""Of a stage's width, what a narrower one has."""
_WIDE = 64
"""From here on a stage's width is a multiple of 8, below it of 4."""
_GUESSES = 4
"""Arrangements of channels that are tried on the whole network."""
_SIDES = (32, 64, 128)
"""Of images on which cuts are tried."""
_DIGITS = 6
"""Of a ratio: what is rounded down to a whole number may need one more in the last."""


@dataclass(frozen=True)
class _Network:
    """A whole network, as cuts are tried on it."""

    arch: Architecture

    def build(self) -> nn.Module:
        return Backbone.from_architecture(self.arch)

    def drawn(self, draw: torch.Generator) -> Tensor:
        image = self.arch.plan.input
        return torch.randn(1, image.channels, *image.size, generator=draw, dtype=torch.float64)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        return main_output(module(x))

    def along(self, x: Tensor, units: Sequence[int]) -> Tensor:
        return x


def narrower_stages(arch: Architecture, spec: Spec, shares: tuple[float, ...] = SHARES) -> Iterator[Alternative]:
    """Each stage with fewer channels, where its units can be found.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
        shares: of the stage's width.
    """
    try:
        trial = Trial(_Network(_small(arch, spec)))
    except (BlockforgeError, RuntimeError, ValueError):
        return  # a network that does not run on an image alone
    for stage in arch.stages:
        dim = arch.plan.stages[stage.index].dim
        if dim is None or not stage.layers:
            continue
        step = 8 if dim >= _WIDE else 4
        slot, seen = Slot(stage.index, -1, -1, f"stages.{stage.index}", "dim"), [dim]
        for share in shares:
            for less in (int(dim * share) // step * step, round(dim * share)):
                if less < 1 or less in seen:
                    continue
                seen.append(less)
                narrow = _narrow(arch, spec, trial, slot, dim, less)
                if narrow is not None:
                    yield narrow
                    break


def _small(arch: Architecture, spec: Spec) -> Architecture:
    """The network for small images, if its tensors are the same there: cuts are tried on it."""
    sizes = _sizes(arch)
    for side in _SIDES:
        try:
            small = compile_spec(load(spec, {"input.size": side}))
            if side < min(arch.plan.input.size) and _sizes(small) == sizes:
                return small
        except BlockforgeError:
            continue
    return arch


def _sizes(arch: Architecture) -> Sizes:
    with torch.device("meta"):
        return sizes_of(Backbone.from_architecture(arch))


def _narrow(arch: Architecture, spec: Spec, trial: Trial, slot: Slot, dim: int, less: int) -> Alternative | None:
    """The stage with `less` channels; None: there is no such network, or nobody can say which of its tensors' entries
    belong to a channel. `trial`: of the network."""
    blocks = {}
    for layer in arch.stages[slot.stage].layers:
        name = arch.plan.stages[slot.stage].layers[layer.index][0]
        written = spec.tree["blocks"][name]
        nodes = layer.branches.values()
        blocks[name] = [_as_wide_inside(b, node, dim, less) for b, node in zip(written, nodes, strict=True)]
    alternative = Alternative(slot, f"dim {less}", {"dim": less, "blocks": blocks})
    try:
        other = compile_spec(edited(spec, [alternative]))
        cut = channels_between(trial, _sizes(other), dim, _GUESSES)
    except (BlockforgeError, RuntimeError, ValueError):
        return None
    saved = {name: getattr(arch, name) - getattr(other, name) for name in ("macs", "params")}
    if cut is None or min(saved.values()) < 0 or not max(saved.values()):
        return None
    return replace(alternative, cut=cut, saved=saved)


def _as_wide_inside(written: Any, node: Node, dim: int, less: int) -> Any:
    """A branch as it is written for a map of `less` channels, with what leaves most of its tensors' sides alone."""
    placed = node.shapes.placed
    if placed is None or node.written_out is not None:
        return written
    wide = placed.resolved()
    given = wide.parameters_dict()
    ways: list[dict[str, Any]] = [{}]
    for name, value in given.items():
        if isinstance(value, float) and value > 0:
            ways += [{name: round(value * dim / less + more, _DIGITS)} for more in (0, 10**-_DIGITS)]
    if "num_heads" in given and given.get("head_dim", 0) is None:
        ways.append({"head_dim": dim // given["num_heads"]})
    place = tuple(s._replace(dim=less) if getattr(s, "dim", None) == dim else s for s in placed.place)
    changed = {i: _changed(wide, made(wide, {**given, **way}), placed.place, place) for i, way in enumerate(ways)}
    least = min(changed, key=lambda i: (changed[i], i))
    branch = written if isinstance(written, Mapping) else {"op": written}
    return {**branch, **ways[least]} if ways[least] else written


def _changed(wide: AnyOp, narrow: AnyOp | None, before: tuple[Any, ...], after: tuple[Any, ...]) -> float:
    """How many sides of a block's tensors another block's lack at another place."""
    if narrow is None:
        return float("inf")
    try:
        narrow.check(*Placed(narrow, after).told)
        with torch.device("meta"):
            one, other = sizes_of(Placed(wide, before).build()), sizes_of(Placed(narrow, after).build())
    except (BlockforgeError, RuntimeError, ValueError):
        return float("inf")
    if one.keys() != other.keys():
        return float("inf")
    return sum(a != b for name in one for a, b in zip(one[name], other[name], strict=False))
