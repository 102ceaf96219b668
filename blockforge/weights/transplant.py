"""Weights of one network in another of like layers.

Nodes of the two graphs are matched by place: those outside of layers by their names and blocks, the layers of a
stage in order, those of equal blocks with each other. Tensors of matched nodes with equal names are copied; of
another size their leading parts are, segment by segment where a side is a multiple of the stage's width (queries,
keys and values; the hidden channels of an FFN), so that what writes a channel and what reads it are cut alike. Where a
stage's width stays and a block has other numbers (a ratio, heads, kernels), its units are found as `symmetry` does: the
largest stay, and where there are more than the source has, the new ones begin so that the block computes the same. A
layer that the source lacks begins as a zero residual where its branches can: its scale, or else the layer that it
computes last, is zero. A classifier of another number of classes is made anew.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Placed
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.units import Layer
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Branch
from blockforge.errors import WeightsError
from blockforge.spec import SpecLike
from blockforge.weights.symmetry import Cut, Middle, cut_between, silent_axes, small_place

Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@dataclass
class Transplanted:
    """What became of each tensor or node of the new network, by name.

    Attributes:
        copied: tensors as they were. cut: tensors of another size, with leading parts or the largest units.
        grown: tensors of blocks with more units or larger kernels, which compute the same.
        new: tensors as a new network has them.
        silent: branches of new layers that begin as zero residuals. loud: those that change the function.
    """

    copied: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    loud: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{len(self.copied)} tensors copied, {len(self.cut)} cut, {len(self.new)} made anew"
        text += f", {len(self.grown)} grown without a change of what is computed" if self.grown else ""
        if self.silent or self.loud:
            text += f"; of new layers {len(self.silent)} branches begin as zero residuals, {len(self.loud)} cannot"
        return text


def transplant(model: Backbone, spec: SpecLike) -> Backbone:
    """A new model of `spec`, with the weights of `model` wherever their layers are alike.

    Raises: SpecError if the spec is wrong, WeightsError if the two have no tensor in common.
    """
    target = Backbone.from_architecture(compile_spec(spec))
    move_weights(model, target)
    return target


def move_weights(source: Backbone, target: Backbone) -> Transplanted:
    """Put the weights of one model into another, as `transplant` does; says what it did.

    Raises: WeightsError if no tensor fits; the target is then unchanged.
    """
    said, nodes = Transplanted(), matched(source.arch, target.arch)
    theirs, own = source.state_dict(), target.state_dict()
    values: dict[str, Tensor] = {}
    for node, other in nodes.items():
        fitted = _fitted(source, target, other, node)
        if fitted is not None:
            part, changed = fitted
            part_of = said.grown if _elements(part) > _elements(_below(theirs, f"{other}.op.")) else said.cut
            values |= {f"{node}.op.{key}": tensor for key, tensor in part.items()}
            part_of += [f"{node}.op.{key}" for key in changed]
            said.copied += [f"{node}.op.{key}" for key in part if key not in changed]
        widths = source.arch.nodes[other].shapes.out_shape.dim, target.arch.nodes[node].shapes.out_shape.dim
        for key in (key for key in own if key.startswith(f"{node}.") and key not in values):
            value = theirs.get(f"{other}{key.removeprefix(node)}")
            if value is None or value.ndim != own[key].ndim or _other_classes(source, target, node, value, own[key]):
                continue
            is_equal = value.shape == own[key].shape
            (said.copied if is_equal else said.cut).append(key)
            values[key] = value if is_equal else leading(value, own[key], widths)
    if not values:
        hint = "weights move between networks whose stages have blocks in common"
        raise WeightsError(f"'{source.arch.name}' and '{target.arch.name}' have no layer in common\n  hint: {hint}")
    said.new = [key for key in own if key not in values]
    target.load_state_dict({**own, **values})
    new = [layer for stage in target.arch.stages for layer in stage.layers if not _nodes(layer) & nodes.keys()]
    branches = [node.name for layer in new for node in layer.branches.values()]
    said.silent = _silence(target, branches)
    said.loud = [name for name in branches if name not in said.silent]
    return said


def _fitted(source: Backbone, target: Backbone, other: str, node: str) -> tuple[dict[str, Tensor], list[str]] | None:
    """The tensors of a branch's block from those of a like one with other numbers, with the names of those that have
    another size; None: it has none, or its units are not to be found."""
    here, there = (arch.nodes[name] for arch, name in ((target.arch, node), (source.arch, other)))
    places = here.shapes.placed, there.shapes.placed
    if places[0] is None or places[1] is None or here.layer is None:
        return None
    if (here.shapes.in_shape.dim, here.out_shape.dim) != (there.shapes.in_shape.dim, there.out_shape.dim):
        return None
    theirs, own = (_below(model.state_dict(), f"{name}.op.") for model, name in ((source, other), (target, node)))
    changed = [key for key in own if key in theirs and own[key].shape != theirs[key].shape]
    if not changed or own.keys() != theirs.keys():
        return None
    one, two = Placed(places[0].op, small_place(places[0])), Placed(places[1].op, small_place(places[1]))
    if _elements(own) < _elements(theirs):
        cut = cut_between(two, one)
        return (_largest(cut, theirs), changed) if cut is not None else None
    cut = cut_between(one, two)
    if isinstance(cut, Middle):
        return cut.into(own, theirs), changed
    axes = silent_axes(one, two, cut) if cut is not None else None
    return (cut.silenced(cut.into(own, theirs), axes), changed) if cut is not None and axes is not None else None


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _elements(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _largest(cut: Cut, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the narrower block: of the units those whose entries have the largest squares."""
    if isinstance(cut, Middle):
        return cut.of(tensors)
    learnt = {name: tensor.square() for name, tensor in tensors.items() if "running_" not in name}
    return cut.of(tensors, sorted(cut.summed(learnt).topk(cut.kept).indices.tolist()))


def matched(source: Architecture, target: Architecture) -> dict[str, str]:
    """The node of the source for each of the target's that is like one."""
    pairs = {name: name for name in target.nodes if ".layers." not in name and _op(source, name) == _op(target, name)}
    for stage, other in zip(target.stages, source.stages, strict=False):
        for layer, like in _aligned(stage.layers, other.layers):
            length = len(layer.name)
            pairs |= {name: like.name + name[length:] for name in _nodes(layer)}
    return {name: other for name, other in pairs.items() if other in source.nodes}


def _op(arch: Architecture, name: str) -> str | None:
    """The name of a node's block; None where there is no such node."""
    node = arch.nodes.get(name)
    if node is None:
        return None
    return node.block.op if node.block is not None else ""


def _other_classes(source: Backbone, target: Backbone, node: str, value: Tensor, own: Tensor) -> bool:
    """Whether a tensor of an output has a row for each class, and the classes are others."""
    if target.arch.nodes[node].site.output is None or not value.ndim:
        return False
    sides = value.shape[0], own.shape[0]
    return sides[0] != sides[1] and sides == (source.arch.plan.num_classes, target.arch.plan.num_classes)


def _aligned(layers: tuple[Layer, ...], others: tuple[Layer, ...]) -> list[tuple[Layer, Layer]]:
    """Layers with equal branches, in order."""
    here, there = ([tuple(layer.branches) for layer in of] for of in (layers, others))
    blocks = difflib.SequenceMatcher(None, here, there, autojunk=False).get_matching_blocks()
    return [(layers[block.a + i], others[block.b + i]) for block in blocks for i in range(block.size)]


def _nodes(layer: Layer) -> set[str]:
    return {node.name for node in layer.nodes}


def leading(value: Tensor, own: Tensor, widths: tuple[int, int]) -> Tensor:
    """`own` with the leading parts of `value` in it.

    Args:
        widths: of the stage, in the source and here. Sides that are the same multiple of them are cut in segments.
    """
    places = [_places(n, m, widths) for n, m in zip(value.shape, own.shape, strict=True)]
    here, there = (_crossed([pair[i] for pair in places]) for i in (1, 0))
    filled = own.clone()
    filled[here] = value[there].to(filled)
    return filled


def _places(size: int, own: int, widths: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What of a side is read in the source, and where it is put."""
    times = size // widths[0]
    if times > 1 and (size, own) == (times * widths[0], times * widths[1]):
        steps, kept = torch.arange(times)[:, None], torch.arange(min(widths))
        return (steps * widths[0] + kept).flatten(), (steps * widths[1] + kept).flatten()
    return torch.arange(min(size, own)), torch.arange(min(size, own))


def _crossed(places: list[Tensor]) -> tuple[Tensor, ...]:
    """Indices of all combinations of places, one of each side."""
    return tuple(torch.meshgrid(*places, indexing="ij"))


def _silence(model: Backbone, names: list[str]) -> list[str]:
    """Make branches pass on what they read; says of which that holds, tried on noise. The others stay as they were."""
    branches = {
        name: branch for name in names if isinstance(branch := model.get_submodule(name), Branch) and branch.skip
    }
    if not branches:
        return []
    last = last_computed({name: branch.op for name, branch in branches.items()}, lambda: _run(model, {}))
    before = {name: copy.deepcopy(branch.state_dict()) for name, branch in branches.items()}
    for name, branch in branches.items():
        parts = [branch.scale] if branch.scale is not None else list(last[name].parameters()) if name in last else []
        for parameter in parts:
            nn.init.zeros_(parameter)
    kept: dict[str, bool] = {}
    _run(model, {branch: _compare(kept, name) for name, branch in branches.items()})
    for name, branch in branches.items():
        if not kept.get(name):
            branch.load_state_dict(before[name])
    return [name for name in names if kept.get(name)]


def last_computed(modules: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, nn.Module]:
    """The layer with parameters that each module computes last where `run` computes them all."""
    last: dict[str, nn.Module] = {}
    handles = [
        leaf.register_forward_hook(_note(last, name, leaf))
        for name, module in modules.items()
        for leaf in module.modules()
        if not [*leaf.children()] and [*leaf.parameters()]
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return last


def _note(last: dict[str, nn.Module], name: str, leaf: nn.Module) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        last[name] = leaf

    return hook


def _compare(kept: dict[str, bool], name: str) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept[name] = bool(torch.equal(args[0], output))

    return hook


def _run(model: Backbone, hooks: dict[nn.Module, Hook]) -> None:
    """A pass over an image of noise, in inference."""
    handles, was_training = [module.register_forward_hook(hook) for module, hook in hooks.items()], model.training
    image = model.arch.plan.input
    own = next(model.parameters())
    noise = torch.randn(1, image.channels, *image.size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            model.eval()(noise.to(own))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
