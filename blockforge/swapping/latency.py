"""What alternatives save in time: each branch alone, on what it reads of one image, beside the network's own."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from blockforge.compiler import compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.console.progress import counting
from blockforge.errors import BudgetError
from blockforge.measure.profile import ProfileError, pick_device, synchronize
from blockforge.swapping.edits import edited
from blockforge.swapping.lessons import seen_by
from blockforge.swapping.slots import Alternative
from blockforge.swapping.weights import new_branch
from blockforge.units import LATENCY

_ROUNDS, _CALLS = 3, 15


def timed(
    model: Backbone, alternatives: Sequence[Alternative], device: str | None, progress: bool
) -> list[Alternative]:
    """The alternatives, which also say how many milliseconds of one image in float32 each saves on a device.

    Branches of equal blocks at places of equal shapes are measured once; of several rounds, in which the network's own
    branch and the other take turns, the least median counts.

    Args:
        model: is in inference mode. device: None is the CPU.
    Raises: BudgetError if the device is not there.
    """
    try:
        place = pick_device(device or "cpu")
    except ProfileError as e:
        raise BudgetError(str(e)) from None
    image = model.arch.plan.input
    x = torch.zeros(1, image.channels, *image.size).to(next(model.parameters()))
    seen = seen_by(model, {a.slot.name for a in alternatives if not a.is_whole}, x)
    known: dict[tuple[str, str, str], float] = {}
    measured = []
    with counting("alternatives timed", len(alternatives), progress) as advance:
        for alternative in alternatives:
            slot, key = alternative.slot, (alternative.slot.name, alternative.label, alternative.mark)
            if not alternative.is_whole:
                key = (str(model.arch.nodes[slot.name].shapes), f"{slot.op} {alternative.label}", alternative.mark)
            if key not in known:
                known[key] = _saved(model, alternative, (x,) if alternative.is_whole else seen[slot.name][0], place)
            measured.append(dataclasses.replace(alternative, saved={**alternative.saved, LATENCY: known[key]}))
            advance()
    return measured


def _saved(model: Backbone, alternative: Alternative, args: tuple[Any, ...], device: str) -> float:
    """Milliseconds; those of a branch that goes are all of its own."""
    own: nn.Module = model if alternative.is_whole else model.get_submodule(alternative.slot.name)
    own = copy.deepcopy(own).eval().to(device)
    other: nn.Module | None = None
    if alternative.is_whole:
        other = Backbone.from_architecture(compile_spec(edited(model.arch.source, [alternative]))).eval().to(device)
    elif not alternative.is_skip:
        other = new_branch(model, alternative).eval().to(device)
    args = tuple(a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
    before, after = [], []
    for _ in range(_ROUNDS):
        before.append(_median_ms(own, args, device))
        after.append(_median_ms(other, args, device) if other is not None else 0.0)
    return min(before) - min(after)


@torch.inference_mode()
def _median_ms(branch: nn.Module, args: tuple[Any, ...], device: str) -> float:
    branch(*args)
    seconds = []
    for _ in range(_CALLS):
        synchronize(device)
        started = time.perf_counter()
        branch(*args)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e3
