"""Which channels, heads or states of a block go together, and what of its kernels is their middle.

A block at two widths has the same tensors, some of them smaller. Along an axis that shrinks lie *units*: hidden
channels of an MLP, heads, states of a scan. Nothing here knows a block: how the units lie is guessed from the sizes,
and a guess is tried. Units are a symmetry of the block: its outputs stay when units change places in all tensors at
once. And where the entries of some units are zero, the narrower block without them gives the same. Where a norm over
the units stands between, that cannot be, and the symmetry alone decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from blockforge.blocks.base import AnyPlaced, Placed
from blockforge.blocks.leaves import on_map
from blockforge.errors import BlockforgeError
from blockforge.kernels.backends import backend

Sizes = Mapping[str, tuple[int, ...]]

MOST_GUESSES = 24
"""Arrangements that are tried before a block counts as one without units."""
SIDE = 8
"""Of the map that a block is tried on, if its tensors are the same there."""
TOLERANCE = 1e-9
"""Of outputs in float64, relative to the largest."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How units lie along an axis of a tensor: `before` entries of no unit, `outer` runs of all units with `inner`
    entries each, `after` entries of no unit."""

    tensor: str
    axis: int
    before: int
    outer: int
    inner: int
    after: int

    def entries(self, units: Sequence[int], number: int) -> Tensor:
        """The entries of so many units, in their order, of `number` units that there are; with those of no unit."""
        grid = torch.arange(self.outer * number * self.inner).view(self.outer, number, self.inner) + self.before
        end = self.before + grid.numel()
        return torch.cat(
            [torch.arange(self.before), grid[:, list(units)].flatten(), torch.arange(end, end + self.after)]
        )


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a block that a narrower one has fewer of.

    Attributes:
        number: how many the block has.
        kept: how many the narrower one has.
        axes: where they lie.
    """

    number: int
    kept: int
    axes: tuple[Axis, ...]

    def of(self, tensors: Mapping[str, Tensor], units: Sequence[int]) -> dict[str, Tensor]:
        """The tensors with these units alone, in this order."""
        chosen = dict(tensors)
        for axis in self.axes:
            at = axis.entries(units, self.number).to(chosen[axis.tensor].device)
            chosen[axis.tensor] = chosen[axis.tensor].index_select(axis.axis, at)
        return chosen

    def alone(self, tensors: Mapping[str, Tensor], units: Sequence[int]) -> dict[str, Tensor]:
        """The tensors with zeros in place of all other units, norms' statistics aside."""
        zeroed = dict(tensors)
        others = [unit for unit in range(self.number) if unit not in set(units)]
        for axis in self.axes:
            at = axis.entries(others, self.number)[axis.before : -axis.after or None]
            if "running_" not in axis.tensor:
                zeroed[axis.tensor] = zeroed[axis.tensor].index_fill(axis.axis, at, 0.0)
        return zeroed

    def into(self, larger: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the wide block with those of the narrower one in them, as its first units."""
        grown = {name: tensor.clone() for name, tensor in larger.items()}
        along = {(a.tensor, a.axis): a.entries(range(self.kept), self.number) for a in self.axes}
        for name, tensor in tensors.items():
            places = [along.get((name, i), torch.arange(size)) for i, size in enumerate(tensor.shape)]
            if places:
                grown[name][torch.meshgrid(*places, indexing="ij")] = tensor.to(grown[name])
            else:
                grown[name] = tensor
        return grown

    def silenced(self, tensors: Mapping[str, Tensor], axes: Sequence[Axis]) -> dict[str, Tensor]:
        """Tensors of the wide block with zeros, along these axes, in place of all units but the first."""
        return replace(self, axes=tuple(axes)).alone(tensors, range(self.kept))

    def summed(self, values: Mapping[str, Tensor]) -> Tensor:
        """Numbers of the tensors' entries, summed over each unit: (number,). Absent tensors count nothing."""
        total = torch.zeros(self.number, dtype=torch.float64)
        for axis in (a for a in self.axes if a.tensor in values):
            tensor = values[axis.tensor].double()
            along = tensor.movedim(axis.axis, 0).flatten(1).sum(1) if tensor.ndim > 1 else tensor
            inside = along[axis.before : len(along) - axis.after]
            total += inside.view(axis.outer, self.number, axis.inner).sum((0, 2)).cpu()
        return total


@dataclass(frozen=True, slots=True)
class Middle:
    """The middle of tensors, which a block with smaller kernels has.

    Attributes:
        axes: (tensor, axis, entries before the middle, entries of it).
    """

    axes: tuple[tuple[str, int, int, int], ...]

    def of(self, tensors: Mapping[str, Tensor], units: Sequence[int] = ()) -> dict[str, Tensor]:
        """The tensors' middles. There is no choice: `units` are none."""
        chosen = dict(tensors)
        for name, axis, before, size in self.axes:
            chosen[name] = chosen[name].narrow(axis, before, size)
        return chosen

    def into(self, larger: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the block with larger kernels, with those of the other in their middles and zeros around."""
        grown = {name: tensors.get(name, tensor).clone() for name, tensor in larger.items()}
        for name, axis, before, size in self.axes:
            after = larger[name].shape[axis] - before - size
            pads = [
                torch.zeros_like(grown[name].narrow(axis, 0, 1)).repeat_interleave(n, axis) for n in (before, after)
            ]
            grown[name] = torch.cat([pads[0], grown[name], pads[1]], axis)
        return grown

    def alone(self, tensors: Mapping[str, Tensor], units: Sequence[int] = ()) -> dict[str, Tensor]:
        """The tensors with zeros around their middles."""
        zeroed = dict(tensors)
        for name, axis, before, size in self.axes:
            outside = torch.ones(zeroed[name].shape[axis], dtype=torch.bool)
            outside[before : before + size] = False
            zeroed[name] = zeroed[name].index_fill(axis, outside.nonzero()[:, 0], 0.0)
        return zeroed


Cut = Units | Middle
"""How the tensors of a block become those of a narrower one."""


class Tried(Protocol):
    """What cuts are tried on: a block at a place, or a whole network."""

    def build(self) -> nn.Module: ...

    def drawn(self, draw: torch.Generator) -> Tensor:
        """What it reads, in float64."""

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """What a module of it gives."""

    def along(self, x: Tensor, units: Sequence[int]) -> Tensor:
        """What it reads where its units have changed places: the same, unless they belong to parts of that."""


@dataclass(frozen=True)
class _AtPlace:
    placed: AnyPlaced

    def build(self) -> nn.Module:
        return self.placed.build()

    def drawn(self, draw: torch.Generator) -> Tensor:
        return torch.randn(1, *self.placed.place[0], generator=draw, dtype=torch.float64)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        return on_map(module, x, self.placed.op.layout)

    def along(self, x: Tensor, units: Sequence[int]) -> Tensor:
        return x


def cut_between(wide: AnyPlaced, narrow: AnyPlaced, likely: int | None = None) -> Cut | None:
    """How a block becomes the same block with other parameters, at the same place: fewer units, or smaller kernels.

    Args:
        likely: how many units it may have, a number of heads say.
    Returns: None if the two differ in another way, or if what shrinks are neither: nobody can say then what to keep.
    """
    with torch.device("meta"):
        before, after = sizes_of(wide.build()), sizes_of(narrow.build())
    shrinks = shrinking(before, after)
    if not shrinks:
        return None
    trial = Trial(wide, narrow)
    first: Units | None = None
    for guess in _likely_first(shrinks, before, after, likely, MOST_GUESSES):
        if trial.is_symmetric(guess):
            if trial.separates(guess):
                return guess
            first = first or guess
    if first is not None:
        return first
    sizes = [(n, i, before[n][i], after[n][i]) for n, i in shrinks]
    if any((size - less) % 2 for *_, size, less in sizes):
        return None
    middle = Middle(tuple((n, axis, (size - less) // 2, less) for n, axis, size, less in sizes))
    return middle if trial.is_separable(middle, []) else None


def channels_between(trial: Trial, narrow: Sizes, likely: int, most: int) -> Units | None:
    """The units of a network that one of these sizes has fewer of, as its symmetry alone says, for norms stand over
    channels: how a stage becomes narrower. None: there are no such.

    Args:
        trial: of the network. likely: how many units there may be. most: arrangements that are tried.
    """
    before = sizes_of(trial.wide)
    guesses = _likely_first(shrinking(before, narrow), before, narrow, likely, most)
    return next((guess for guess in guesses if trial.is_symmetric(guess)), None)


def silent_axes(wide: AnyPlaced, narrow: AnyPlaced, units: Units) -> tuple[Axis, ...] | None:
    """Where new units must be zero so that the wide block gives what the narrower one gives; elsewhere they may be
    anything, so that they learn. None: zeros nowhere do, for a norm over the units stands between."""
    trial = Trial(wide, narrow)
    some = trial.narrow_tensors()
    grown = units.into(trial.tensors, some)
    learnt = [axis for axis in units.axes if "running_" not in axis.tensor]
    for axes in (*((axis,) for axis in reversed(learnt)), tuple(learnt)):
        if trial.gives_alike(units.silenced(grown, axes), some):
            return axes
    return None


def small_place(placed: AnyPlaced) -> tuple[Any, ...]:
    """The place of a block on a small map, if its tensors are the same there; else its own."""
    other = Placed(placed.op, (placed.place[0]._replace(height=SIDE, width=SIDE), *placed.place[1:]))
    try:
        with torch.device("meta"):
            is_same = sizes_of(other.build()) == sizes_of(placed.build())
    except (BlockforgeError, RuntimeError):
        is_same = False
    return other.place if is_same else placed.place


def sizes_of(module: nn.Module) -> Sizes:
    """The shapes of a module's tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def shrinking(before: Sizes, after: Sizes) -> list[tuple[str, int]]:
    """The sides of tensors that become shorter; none where the tensors are others, or a side becomes longer."""
    if before.keys() != after.keys() or any(len(before[n]) != len(after[n]) for n in before):
        return []
    changed = [(n, i) for n in before for i, (a, b) in enumerate(zip(before[n], after[n], strict=True)) if a != b]
    return [] if any(before[n][i] < after[n][i] for n, i in changed) else changed


def _likely_first(
    shrinks: Sequence[tuple[str, int]], before: Sizes, after: Sizes, likely: int | None, most: int
) -> list[Units]:
    guesses = itertools.islice(_guesses(shrinks, before, after), most) if shrinks else ()
    return sorted(guesses, key=lambda g: g.number != likely)


def _guesses(shrinks: Sequence[tuple[str, int]], before: Sizes, after: Sizes) -> Iterator[Units]:
    """Ways in which units may lie along the axes, the finest units first."""
    pairs = [(before[n][i], after[n][i]) for n, i in shrinks]
    for wide, narrow in _counts(pairs):
        entries = [(size - less) // (wide - narrow) for size, less in pairs]
        for inside in _inner_widths(entries):
            for is_last in (False, True):
                axes = [
                    axis_of(*place, size, each, math.gcd(each, inside), wide, is_last)
                    for place, (size, _), each in zip(shrinks, pairs, entries, strict=True)
                ]
                if all(axis.before >= 0 and axis.after >= 0 for axis in axes):
                    yield Units(wide, narrow, tuple(axes))
                if not any(axis.before + axis.after for axis in axes):
                    break  # nothing stands apart: the last guess is the first


def _counts(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Numbers of units before and after that the sizes of all axes allow, the most units first."""
    wide, narrow = min(pairs)
    lost = math.gcd(*(size - less for size, less in pairs))
    for size in range(1, lost + 1):
        if lost % size == wide % size == narrow % size == 0:
            yield wide // size, narrow // size


def _inner_widths(entries: Sequence[int]) -> list[int]:
    """How many entries of a unit may lie beside each other, where axes have so many of it: as many as on the axis with
    the fewest, or all."""
    fewest = min((each for each in entries if each > 1), default=1)
    return list(dict.fromkeys((fewest, max(entries), 1)))


def axis_of(tensor: str, axis: int, size: int, each: int, inner: int, units: int, is_last: bool) -> Axis:
    """An axis of `size` with `each` entries a unit, `inner` of them beside each other; what is left stands first or
    last."""
    apart = size - each * units
    return Axis(tensor, axis, 0 if is_last else apart, each // inner, inner, apart if is_last else 0)


class Trial:
    """A block with random tensors in float64, and the narrower one; or a network, without."""

    def __init__(self, wide: AnyPlaced | Tried, narrow: AnyPlaced | None = None) -> None:
        self.draw = torch.Generator().manual_seed(0)
        self.wide = wide.build().double().eval()
        self.narrow = narrow.build().double().eval() if narrow is not None else self.wide
        self.tried: Tried = _AtPlace(wide) if isinstance(wide, Placed) else wide
        self.tensors = {name: self._values(name, t) for name, t in self.wide.state_dict().items()}
        self.x = self.tried.drawn(self.draw)
        self.y = self._run(self.wide, self.tensors)

    def is_symmetric(self, units: Units) -> bool:
        """Whether the output stays when the units change places."""
        order = torch.randperm(units.number, generator=self.draw).tolist()
        order = order if order != sorted(order) else order[::-1]
        return _same(self._run(self.wide, units.of(self.tensors, order), self.tried.along(self.x, order)), self.y)

    def separates(self, units: Units) -> bool:
        """Whether the narrower block gives what the wide one gives where all entries of the other units are zero."""
        kept = sorted(torch.randperm(units.number, generator=self.draw)[: units.kept].tolist())
        return self.is_separable(units, kept)

    def is_separable(self, cut: Cut, kept: Sequence[int]) -> bool:
        """Whether the narrower block gives what the wide one gives where all that it lacks is zero."""
        return self.gives_alike(cut.alone(self.tensors, kept), cut.of(self.tensors, kept))

    def gives_alike(self, wide: Mapping[str, Tensor], narrow: Mapping[str, Tensor]) -> bool:
        """Whether the two blocks give the same with these tensors."""
        return _same(self._run(self.wide, wide), self._run(self.narrow, narrow))

    def narrow_tensors(self) -> dict[str, Tensor]:
        return {name: self._values(name, t) for name, t in self.narrow.state_dict().items()}

    @torch.inference_mode()
    def _run(self, module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor | None = None) -> Tensor:
        module.load_state_dict(tensors)
        with backend("torch"):  # nothing is compiled for a few passes in float64
            return self.tried.run(module, self.x if x is None else x)

    def _values(self, name: str, tensor: Tensor) -> Tensor:
        """Values that no two entries share, and that a norm's statistics may have."""
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=self.draw, dtype=torch.float64)
        spread = 0.5 / max(1, tensor[0].numel() if tensor.ndim > 1 else 1) ** 0.5
        return noise.abs() * 0.1 + 0.5 if "running_var" in name else tensor + noise * spread


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
