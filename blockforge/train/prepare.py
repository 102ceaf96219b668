"""The network that a run trains: built for the data, with weights of others if wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from blockforge.api import build
from blockforge.compiler import Architecture
from blockforge.compiler.graph.units import Unit
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import DataError
from blockforge.notes import note
from blockforge.saving import load_weights
from blockforge.spec import Spec, SpecLike, load
from blockforge.train.classes import classes_of, listed, same_classes
from blockforge.train.data import Data
from blockforge.train.recipe import Recipe
from blockforge.weights.family import FAMILIES
from blockforge.weights.tensor_files import unwrap_file

Overrides = Mapping[str, Any] | list[str] | None


def make_model(
    source: Backbone | SpecLike | Architecture,
    data: Data,
    *,
    overrides: Overrides = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Backbone:
    """The network of a spec with as many classes as the data have, or the network given. It knows their names.

    Args:
        weights: a file of weights to start from; a classifier of other classes in it is replaced, which is said.
        seed: of the initialisation.
    Raises: DataError if the spec, or the network, says another number of classes than the data.
    """
    num_classes = len(data.classes)
    if isinstance(source, Backbone):
        model = source
        if model.num_classes != num_classes:
            text = f"the network has {model.num_classes} classes, {data.name} has {num_classes}"
            raise DataError(
                f"{text}\n  hint: bf.build(..., num_classes={num_classes}), or reset_classifier({num_classes})"
            )
        if weights is not None:
            load_weights(model, weights)
        _check_heads(model.arch, data)
        model.classes = data.classes
        return model
    spec = load(source.spec if isinstance(source, Architecture) else source, overrides)  # type: ignore[arg-type]
    if "num_classes" in spec.tree and spec.num_classes != num_classes:
        text = f"the spec says num_classes {spec.num_classes}, {data.name} has {num_classes} classes"
        raise DataError(f"{text}\n  hint: --set num_classes={num_classes}")
    model = build(spec, num_classes=num_classes, seed=seed)
    _check_heads(model.arch, data)
    if weights is not None:
        model = _started(model, data, weights, seed)
    model.classes = data.classes
    return model


def make_evaluated(
    source: Backbone | SpecLike | Architecture,
    data: Data,
    *,
    overrides: Overrides = None,
    weights: str | os.PathLike[str] | None = None,
) -> Backbone:
    """The network given, or that of a spec with its weights, with the classes of the spec or of the weights.

    Raises: DataError if it has no classifier; WeightsError if the weights do not fit.
    """
    if not isinstance(source, Backbone) and weights is None:
        return make_model(source, data, overrides=overrides)
    if isinstance(source, Backbone):
        model = source
    else:
        spec = load(source.spec if isinstance(source, Architecture) else source, overrides)  # type: ignore[arg-type]
        model = build(spec)
        held = classes_in(model, weights) if weights is not None and "num_classes" not in spec.tree else None
        if held is not None and held != model.num_classes:
            model = build(spec, num_classes=held)
    if weights is not None:
        load_weights(model, weights)
    if not model.num_classes:
        raise DataError("the network has no classifier, so it cannot be evaluated\n  hint: num_classes")
    _check_head("head", model.arch.main_head, model.arch, data)
    return model


def _check_heads(arch: Architecture, data: Data) -> None:
    """Each head is trained, so each must give classes of the image. Raises: DataError."""
    for name, head in arch.heads.items():
        _check_head(name, head, arch, data)


def _check_head(name: str, head: Unit, arch: Architecture, data: Data) -> None:
    if (shape := head.last.out_shape).positions > 1:
        text = f"{head.name} of {arch.name} gives a map, {shape}, and each image of {data.name} has one class"
        several = f"; --set heads.{name}=none leaves it out" if arch.plan.names_outputs else ""
        raise DataError(f"{text}\n  hint: a head that pools, such as classifier{several}")


def _started(model: Backbone, data: Data, weights: str | os.PathLike[str], seed: int) -> Backbone:
    """The network with these weights, and with a new classifier if theirs is of other classes."""
    held = classes_in(model, weights) or model.num_classes
    known = classes_of(weights, held)
    other = known is not None and data.named and not same_classes(known, data.classes)
    if held == model.num_classes and not other:
        load_weights(model, weights)
        return model
    have = listed(known) if known is not None else f"{held} classes"
    note(f"{os.fspath(weights)} was trained on {have}: the classifier for the {len(data.classes)} here is a new one")
    return _replaced(model.spec, weights, held, len(data.classes), seed)


def classes_in(model: Backbone, weights: str | os.PathLike[str]) -> int | None:
    """Classes of the classifier in a file of weights, ours or in an official layout; None: it cannot be told."""
    tensors = unwrap_file(weights, say=lambda line: None)  # whoever loads them says it
    classifier = model.get_classifier()
    name = next((n for n, module in model.named_modules() if module is classifier), "")
    ours = f"{name}.weight"
    layouts = (f.sources(ours) for f in FAMILIES.values() if f.matches(set(tensors)))
    names = (ours, *(key for keys in layouts if keys for key in keys))
    tensor = next((tensors[key] for key in names if key in tensors), None)
    return tensor.shape[0] if tensor is not None and tensor.ndim else None


def _replaced(spec: Spec, weights: str | os.PathLike[str], have: int, want: int, seed: int) -> Backbone:
    """A network with the weights of one of `have` classes, and a new classifier."""
    model = build(spec, num_classes=have, seed=seed)
    load_weights(model, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.reset_classifier(want)
    return model


def workers_for(recipe: Recipe, data: Data) -> int:
    """Processes that decode; images in memory need none."""
    if not data.train.crops:
        return 0
    return recipe.workers if recipe.workers is not None else min(8, os.cpu_count() or 1)
