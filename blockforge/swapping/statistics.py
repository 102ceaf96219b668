"""Running statistics of norms in thinner branches.

Where units or places of kernels go, the maps behind them have other means and variances than a BatchNorm's buffers say,
and the network's answers move for that alone. So what the change does to them is measured on images: means move by the
difference between the thinner branch and the network's own, variances by their ratio. Whatever the images are, a branch
that does not change keeps its statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.swapping.lessons import seen_by
from blockforge.swapping.slots import Alternative
from blockforge.swapping.weights import Kept, Narrowed, new_branch, tensors_of, with_alternatives
from blockforge.train.data import Batch
from blockforge.weights.symmetry import Cut

TOGETHER = 64
"""Branches that are measured in one pass."""
_LEAST = 1e-12


@torch.no_grad()
def settled(
    model: Backbone, alternatives: Sequence[Alternative], kept: Kept, images: Sequence[Batch]
) -> dict[Alternative, Mapping[str, Tensor] | Narrowed]:
    """The tensors of the thinner branches whose norms keep running statistics, with these as the images have them; and
    what narrower stages and aggregators of fewer sources keep, with the statistics of the whole network, or their own.

    Args:
        model: is in inference mode.
    """
    branches_of = [a for a in alternatives if a.cut is not None and not a.is_whole]
    thinner = [a for a in branches_of if _norms(model.get_submodule(a.slot.name))]
    states: dict[Alternative, Mapping[str, Tensor] | Narrowed] = {}
    for part in _parts(thinner):
        names = {a.slot.name for a in part}
        own = {name: copy.deepcopy(model.get_submodule(name)) for name in names}
        branches: dict[Alternative, nn.Module] = {}
        for alternative in part:
            branches[alternative] = new_branch(model, alternative)
            branches[alternative].load_state_dict(tensors_of(model, alternative, kept))
        before = {a: {n: t.clone() for n, t in branch.state_dict().items()} for a, branch in branches.items()}
        everyone = [*((a.slot.name, b) for a, b in branches.items()), *own.items()]
        for _, branch in everyone:
            _begin(branch)
        for x, _ in images:
            seen = seen_by(model, names, x)
            for name, branch in everyone:
                branch(*seen[name][0])
        for alternative, branch in branches.items():
            units = kept.get(alternative, ())
            assert alternative.cut is not None
            assert not isinstance(units, Mapping | Narrowed)
            whole = _cut(own[alternative.slot.name].state_dict(), alternative.cut, units)
            states[alternative] = _moved(before[alternative], branch.state_dict(), whole)
    if _norms(model):
        narrow = [a for a in alternatives if a.cut is not None and a.is_whole]
        states |= _narrowed(model, narrow, kept, images)
    return states


def _narrowed(
    model: Backbone, alternatives: Sequence[Alternative], kept: Kept, images: Sequence[Batch]
) -> dict[Alternative, Narrowed]:
    """What narrower stages keep, with the statistics of all norms as the images have them."""
    own = _measured(copy.deepcopy(model), images) if alternatives else {}
    narrowed = {}
    for alternative in alternatives:
        units = kept[alternative]
        assert alternative.cut is not None
        assert not isinstance(units, Mapping | Narrowed)
        narrow = with_alternatives(model, model.arch.source, [alternative], kept)
        before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
        moved = _moved(before, _measured(narrow, images), alternative.cut.of(own, units))
        own_norms = f"{alternative.slot.name}." if alternative.slot.is_sources else ""
        running = {n: t for n, t in moved.items() if "running_" in n and n.startswith(own_norms)}
        narrowed[alternative] = Narrowed(units, running)
    return narrowed


def _measured(network: Backbone, images: Sequence[Batch]) -> Mapping[str, Tensor]:
    """Its tensors, with the statistics of the images."""
    _begin(network)
    place = next(network.parameters()).device
    for x, _ in images:
        network(x.to(place))
    return network.state_dict()


def _parts(alternatives: Sequence[Alternative]) -> list[Sequence[Alternative]]:
    return [alternatives[i : i + TOGETHER] for i in range(0, len(alternatives), TOGETHER)]


def _norms(branch: nn.Module) -> list[Any]:
    return [m for m in branch.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


def _begin(branch: nn.Module) -> None:
    """Let its norms take the statistics of what comes, all batches alike."""
    branch.eval()
    for norm in _norms(branch):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()


def _cut(tensors: Mapping[str, Tensor], cut: Cut, units: Sequence[int]) -> dict[str, Tensor]:
    op = cut.of({n.removeprefix("op."): t for n, t in tensors.items() if n.startswith("op.")}, units)
    return {**tensors, **{f"op.{name}": tensor for name, tensor in op.items()}}


def _moved(
    before: Mapping[str, Tensor], measured: Mapping[str, Tensor], whole: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors with their statistics moved as the measured ones have moved from those of the whole branch."""
    moved = dict(before)
    for name in before:
        if name.endswith("running_mean"):
            moved[name] = before[name] + measured[name] - whole[name]
        elif name.endswith("running_var"):
            moved[name] = before[name] * measured[name].clamp(min=_LEAST) / whole[name].clamp(min=_LEAST)
    return moved
