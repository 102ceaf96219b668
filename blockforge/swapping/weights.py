"""The tensors of a network in which alternatives stand, from those of the network that it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.units import Layer
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import build_module
from blockforge.compiler.lowering.modules import Branch
from blockforge.spec import Spec
from blockforge.swapping.edits import edited
from blockforge.swapping.slots import Alternative
from blockforge.weights.symmetry import Units


@dataclass(frozen=True)
class Narrowed:
    """What a narrower stage, or an aggregator of fewer sources, keeps.

    Attributes:
        units: of its channels, or sources, in order.
        statistics: running ones of the network's norms, as they are then, by their names.
    """

    units: Sequence[int]
    statistics: Mapping[str, Tensor]

    def of(self, tensors: Mapping[str, Tensor], alternative: Alternative) -> dict[str, Tensor]:
        """The network's tensors with the narrower stage. Statistics that another narrower stage cuts stay its own."""
        assert alternative.cut is not None
        cut = alternative.cut.of(tensors, self.units)
        return cut | {n: t for n, t in self.statistics.items() if t.shape == cut[n].shape}


Kept = Mapping[Alternative, Sequence[int] | Mapping[str, Tensor] | Narrowed]
"""Where the weights of each alternative come from: the units of the network's own block that it keeps, in order; or the
tensors of a foreign branch, by their names in it."""


def most_important(
    alternatives: Sequence[Alternative], importances: Mapping[Alternative, Tensor]
) -> dict[Alternative, list[int]]:
    """The units that are kept: those with the highest scores, in the order in which they lie; and the sources that
    alternatives keep."""
    kept = {}
    for alternative in (a for a in alternatives if a.slot.is_sources):
        assert alternative.branch is not None
        kept[alternative] = [alternative.branch["of"].index(source) for source in alternative.branch["sources"]]
    for alternative, scores in importances.items():
        assert isinstance(alternative.cut, Units)
        kept[alternative] = sorted(scores.topk(alternative.cut.kept).indices.tolist())
    return kept


def tensors_of(model: Backbone, alternative: Alternative, kept: Kept) -> dict[str, Tensor]:
    """The tensors of the branch that an alternative puts into its slot, by their names in it."""
    given = kept.get(alternative, ())
    if isinstance(given, Mapping):
        return dict(given)
    assert alternative.cut is not None
    assert not isinstance(given, Narrowed)
    tensors = model.get_submodule(alternative.slot.name).state_dict()
    block = alternative.cut.of({n.removeprefix("op."): t for n, t in tensors.items() if n.startswith("op.")}, given)
    return tensors | {f"op.{name}": tensor for name, tensor in block.items()}


@contextmanager
def standing_in(model: Backbone, alternative: Alternative, kept: Kept) -> Iterator[Backbone]:
    """`model` with an alternative in its slot, for as long as the context lasts; where more than a branch changes, it
    is another network."""
    if alternative.is_whole:
        yield with_alternatives(model, model.arch.source, [alternative], kept)
        return
    layer, name = alternative.slot.name.rsplit(".", 1)
    other: nn.Module = nn.Identity()
    if not alternative.is_skip:
        other = new_branch(model, alternative)
        other.load_state_dict(tensors_of(model, alternative, kept))
    with replaced(model.get_submodule(layer), name, other):
        yield model


@contextmanager
def replaced(owner: nn.Module, name: str, other: nn.Module) -> Iterator[None]:
    """A module with another in it, for as long as the context lasts."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def new_branch(model: Backbone, alternative: Alternative) -> Branch:
    """The branch that an alternative puts into its slot, freshly initialised."""
    slot = alternative.slot
    layer = compile_spec(edited(model.arch.source, [alternative])).stages[slot.stage].layers[slot.layer]
    module = build_module(layer).get_submodule([*layer.branches][slot.branch])
    assert isinstance(module, Branch)
    like = next(model.parameters())
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
    for alternative in (a for a in chosen if a.slot.branch < 0):
        own = kept[alternative]
        assert not isinstance(own, Mapping)
        tensors = (own if isinstance(own, Narrowed) else Narrowed(own, {})).of(tensors, alternative)
    for alternative in (a for a in chosen if a.slot.branch >= 0):
        prefix = f"{alternative.slot.name}."
        gone = (prefix, f"{prefix.rsplit('.', 2)[0]}.aggregate.") if alternative.is_whole else (prefix,)
        tensors = {n: t for n, t in tensors.items() if not n.startswith(gone)}
        if not alternative.is_skip:
            tensors |= {f"{prefix}{n}": t for n, t in tensors_of(model, alternative, kept).items()}
    other.load_state_dict(_renamed(tensors, model.arch, arch, chosen))
    return other.to(next(model.parameters()).device).train(model.training)


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
