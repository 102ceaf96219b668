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
from blockforge.compiler.lowering.lower import build_module
from blockforge.compiler.lowering.modules import Branch
from blockforge.spec import Spec
from blockforge.swapping.edits import edited
from blockforge.swapping.slots import Alternative

Kept = Mapping[Alternative, Sequence[int] | Mapping[str, Tensor]]
"""Where the weights of each alternative come from: the units of the network's own block that it keeps, in order; or the
tensors of a foreign branch, by their names in it."""


def most_important(importances: Mapping[Alternative, Tensor]) -> dict[Alternative, list[int]]:
    """The units that are kept: those with the highest scores, in the order in which they lie."""
    kept = {}
    for alternative, scores in importances.items():
        assert alternative.units is not None
        kept[alternative] = sorted(scores.topk(alternative.units.kept).indices.tolist())
    return kept


def thinned(model: Backbone, alternative: Alternative, kept: Kept) -> dict[str, Tensor]:
    """The tensors of an alternative's block."""
    units, chosen = alternative.units, kept[alternative]
    assert units is not None
    assert not isinstance(chosen, Mapping)
    return units.of(model.get_submodule(f"{alternative.slot.name}.op").state_dict(), chosen)


@contextmanager
def standing_in(model: Backbone, alternative: Alternative, kept: Kept) -> Iterator[None]:
    """`model` with an alternative in its slot, for as long as the context lasts."""
    if alternative.params is not None:
        owner, name, other = model.get_submodule(alternative.slot.name), "op", _block(model, alternative, kept)
    else:
        layer, name = alternative.slot.name.rsplit(".", 1)
        owner = model.get_submodule(layer)
        other = foreign_branch(model, alternative, kept) if alternative.is_foreign else nn.Identity()
    with replaced(owner, name, other):
        yield


@contextmanager
def replaced(owner: nn.Module, name: str, other: nn.Module) -> Iterator[None]:
    """A module with another in it, for as long as the context lasts."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def foreign_branch(model: Backbone, alternative: Alternative, kept: Kept | None = None) -> Branch:
    """The branch that a foreign alternative puts into its slot.

    Args:
        kept: with its tensors; None: freshly initialised.
    """
    slot = alternative.slot
    layer = compile_spec(edited(model.arch.source, [alternative])).stages[slot.stage].layers[slot.layer]
    module = build_module(layer).get_submodule([*layer.branches][slot.branch])
    assert isinstance(module, Branch)
    if kept is not None:
        tensors = kept[alternative]
        assert isinstance(tensors, Mapping)
        module.load_state_dict(tensors)
    like = next(model.parameters())
    return module.to(like.device, like.dtype).train(model.training)


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
        prefix, given = f"{alternative.slot.name}.", kept.get(alternative)
        if alternative.params is not None:
            tensors |= {f"{prefix}op.{n}": t for n, t in thinned(model, alternative, kept).items()}
            continue
        tensors = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
        if isinstance(given, Mapping):
            tensors |= {f"{prefix}{n}": t for n, t in given.items()}
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
