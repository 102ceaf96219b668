"""The tensors of a network in which alternatives stand, from those of the network that it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Placed
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.units import Layer
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.spec import Spec
from blockforge.swapping.edits import edited
from blockforge.swapping.slots import Alternative

Kept = Mapping[Alternative, Sequence[int]]
"""The units that each alternative keeps, in order."""


def most_important(importances: Mapping[Alternative, Tensor]) -> dict[Alternative, list[int]]:
    """The units that are kept: those with the highest scores, in the order in which they lie."""
    kept = {}
    for alternative, scores in importances.items():
        assert alternative.units is not None
        kept[alternative] = sorted(scores.topk(alternative.units.kept).indices.tolist())
    return kept


def thinned(model: Backbone, alternative: Alternative, kept: Kept) -> dict[str, Tensor]:
    """The tensors of an alternative's block."""
    assert alternative.units is not None
    return alternative.units.of(model.get_submodule(f"{alternative.slot.name}.op").state_dict(), kept[alternative])


@contextmanager
def standing_in(model: Backbone, alternative: Alternative, kept: Kept) -> Iterator[None]:
    """`model` with an alternative in its slot, for as long as the context lasts."""
    other: nn.Module
    if alternative.params is None:
        layer, name = alternative.slot.name.rsplit(".", 1)
        owner, other = model.get_submodule(layer), nn.Identity()
    else:
        owner, name, other = model.get_submodule(alternative.slot.name), "op", _block(model, alternative, kept)
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _block(model: Backbone, alternative: Alternative, kept: Kept) -> nn.Module:
    placed = model.arch.nodes[alternative.slot.name].shapes.placed
    assert placed is not None
    assert alternative.params is not None
    wide = placed.resolved()
    block = type(wide)(**{**wide.parameters_dict(), **alternative.params})
    module = Placed(block, placed.place).build()
    tensors = thinned(model, alternative, kept)
    module.load_state_dict(tensors)
    like = next((t for t in tensors.values() if t.is_floating_point()), torch.empty(0))
    return module.to(like.device, like.dtype).train(model.training)


def with_alternatives(model: Backbone, spec: Spec, chosen: Sequence[Alternative], kept: Kept) -> Backbone:
    """The network with alternatives in their slots, with the weights of `model`.

    Args:
        model: the network of `spec`, which is written out.
        kept: see `most_important`.
    """
    arch = compile_spec(edited(spec, chosen))
    other = Backbone.from_architecture(arch)
    tensors = model.state_dict()
    for alternative in chosen:
        prefix = f"{alternative.slot.name}."
        if alternative.params is None:
            tensors = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
        else:
            tensors |= {f"{prefix}op.{n}": t for n, t in thinned(model, alternative, kept).items()}
    other.load_state_dict(_renamed(tensors, model.arch, arch, chosen))
    return other.train(model.training)


def _renamed(
    tensors: Mapping[str, Tensor], before: Architecture, after: Architecture, chosen: Sequence[Alternative]
) -> dict[str, Tensor]:
    """The tensors under the names that their branches have where others are gone."""
    gone = {a.slot.name for a in chosen if a.is_skip}
    stays = [n for stage in before.stages for layer in stage.layers for n in _branches(layer) if n not in gone]
    now = [n for stage in after.stages for layer in stage.layers for n in _branches(layer)]
    names = dict(zip(stays, now, strict=True))
    renamed = {}
    for name, tensor in tensors.items():
        old = next((n for n in names if name.startswith(f"{n}.")), None)
        renamed[name if old is None else names[old] + name[len(old) :]] = tensor
    return renamed


def _branches(layer: Layer) -> list[str]:
    return [node.name for node in layer.branches.values()]
