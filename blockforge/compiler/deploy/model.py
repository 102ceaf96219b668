"""A model -> the same network in the form that is deployed, with the values that make it give the same."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from blockforge.blocks.building import built
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.compose.program import Step
from blockforge.compiler.deploy.network import Rewritten, deployment
from blockforge.compiler.deploy.tensors import New, Own, Recipe
from blockforge.compiler.graph.units import Unit
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import build_module


def deploy(model: Backbone) -> Backbone:
    """A model that gives in inference what this one gives, from fewer parameters and operations; this one stays as it
    is. Norms by running statistics and scales become a part of the convolution or linear layer beside them,
    convolutions that read one map and are added become one, and so does the identity beside them.

    It is for inference alone: `train()` raises. Its `arch` is the deployed form, with the hash of the trained one.

    Raises: BlockforgeError where a layer that would be folded is not as it was built, as with an adapter around it.
    """
    if model.arch.trained is not None:
        return copy.deepcopy(model)
    done = deployment(model.arch)
    units = {unit.name: unit for unit in done.arch.units}

    def made(path: str, module: nn.Module) -> nn.Module:
        nodes = units[path].nodes if path in units else ()
        if not any(node.name in done.rewritten for node in nodes):
            return copy.deepcopy(module).eval()
        return _unit(units[path], module, done.rewritten).eval()

    return model.in_form(done.arch, made)


def _unit(unit: Unit, trained: nn.Module, rewritten: dict[str, Rewritten]) -> nn.Module:
    """The module of a unit in which nodes are rewritten, from that of the trained form."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        made = build_module(unit)
    for node in unit.nodes:
        deployed, name = rewritten.get(node.name), node.name[len(unit.name) + 1 :]  # none: the node is the whole unit
        source = trained.get_submodule(name)
        if deployed is None:
            setattr(made, name, copy.deepcopy(source))
        else:
            _fill(made.get_submodule(f"{name}.op" if name else ""), source, deployed)
            if name and not deployed.has_branch:
                _keep_around(made.get_submodule(name), source)
    return made


def _keep_around(branch: nn.Module, source: nn.Module) -> None:
    """Give a branch whose block alone is rewritten what stands around that."""
    for name, child in source.named_children():
        if name != "op":
            setattr(branch, name, copy.deepcopy(child))
    for name, parameter in source.named_parameters(recurse=False):
        setattr(branch, name, copy.deepcopy(parameter))


def _fill(made: nn.Module, trained: nn.Module, deployed: Rewritten) -> None:
    """Give a composed module its parts: as they were, or with the values that recipes make."""
    assert isinstance(made, Composed)
    like = next((p for p in trained.parameters() if p.is_floating_point()), None)
    for number, (step, recipe) in enumerate(zip(deployed.program.steps, deployed.recipes, strict=True), 1):
        if number in deployed.program.called and not step.is_shared:
            parent, _, name = step.path.rpartition(".")
            setattr(made.get_submodule(parent), name, _part(step, recipe, trained, like))
    made.hold_types()


def _part(step: Step, recipe: Recipe, trained: nn.Module, like: Tensor | None) -> nn.Module:
    if isinstance(recipe, Own) and recipe.path in dict(trained.named_modules()):  # absent where it was not called
        return copy.deepcopy(trained.get_submodule(recipe.path))
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        module = built(step.placed)
    if isinstance(recipe, Own | New):
        return module
    weight, bias = recipe.values(trained)
    for name, value in {"weight": weight, "bias": bias}.items():
        own = getattr(module, name)
        if own is not None:
            assert value is not None
            value = value.reshape(own.shape) if like is None else value.reshape(own.shape).to(like)
            setattr(module, name, nn.Parameter(value))
    return module
