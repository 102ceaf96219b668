"""Accuracy and loss of a network on labelled images."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.extras import need
from blockforge.spec import SpecLike
from blockforge.train.augment import Normalize, normalization
from blockforge.train.classes import labels_of, run_beside
from blockforge.train.data import Data, Split, Want
from blockforge.train.launch import join
from blockforge.train.open_data import open_data
from blockforge.train.prepare import Overrides, make_evaluated, workers_for
from blockforge.train.recipe import Recipe, load_recipe
from blockforge.train.result import Evaluation

Sum = Callable[[Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[Any]]


def evaluate(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    *,
    weights: str | os.PathLike[str] | None = None,
    overrides: Overrides = None,
    batch_size: int = 256,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    class_map: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> Evaluation:
    """Measure a network on a data set, whose classes are found among the network's by name.

    Args:
        model, data, overrides: as for `fit`; the classes are the network's.
        weights: a file of weights; must fit, classifier included.
        class_map: a file of the network's classes, one a line by label, where its weights do not name them.
        split: `test`, `val` or `train`; None: the test images, or if there are none those to choose by.
        recipe: whose `normalize` and `crop_pct` hold; None: those of the run that wrote `weights`, where it lies
            beside them, else those of `micro` for images in memory and of ImageNet's usual evaluation for files.
    Raises: SpecError, WeightsError, DataError.
    """
    need("train", "accelerate")
    accelerator = join()
    opened = open_data(data, least=1)
    images = opened.part(split)
    network = make_evaluated(model, opened, overrides=overrides, weights=weights).to(accelerator.device)
    known, labels = labels_of(network, opened, weights, class_map)
    want, normalize = reading(network, opened, weights, recipe, batch_size)
    want = dataclasses.replace(want, rank=accelerator.process_index, world=accelerator.num_processes)
    total = (lambda t: accelerator.reduce(t, "sum")) if want.world > 1 else (lambda t: t)
    evaluation = measure(network, images, want, normalize, network.num_classes, labels=labels, total=total)
    names = {label: name for name, label in zip(opened.classes, labels, strict=True)}
    return dataclasses.replace(
        evaluation, classes=known or tuple(names.get(i, str(i)) for i in range(network.num_classes))
    )


def reading(
    network: Backbone,
    data: Data,
    weights: str | os.PathLike[str] | None,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None,
    batch_size: int,
) -> tuple[Want, Normalize]:
    """How images are read for a network that is not trained: what the recipe says, or the run that wrote `weights`."""
    image = network.arch.plan.input
    run = run_beside(weights) if weights is not None and recipe is None else {}
    settled = load_recipe(recipe or {"epochs": 1, "batch_size": 1, "lr": 1.0, "crop_pct": 0.875})
    normalize = normalization(settled, data, image.channels)
    if {"mean", "std"} <= run.keys() and len(run["mean"]) == image.channels:
        normalize = Normalize(run["mean"], run["std"])
    crop_pct, workers = run.get("crop_pct", settled.crop_pct), workers_for(settled, data)
    size = image.size[0], image.size[1]
    return Want(size, image.channels, batch_size, crop_pct=crop_pct, workers=workers), normalize


def measure(
    model: nn.Module,
    split: Split,
    want: Want,
    normalize: Callable[[Tensor], Tensor],
    num_classes: int,
    *,
    labels: Sequence[int] | None = None,
    device: torch.device | None = None,
    autocast: Autocast = nullcontext,
    total: Sum = lambda counts: counts,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Evaluate a network in evaluation mode; its mode is as before afterwards.

    Args:
        split, want: the images, and how this process reads its part of them.
        normalize: images_BCHW as they were read -> what the network sees.
        labels: the network's label of each of the data's; None: they are the same.
        autocast: context of the forward pass.
        total: sums counts over all processes.
        advance: told the number of images after each batch.
    """
    device = device or next(model.parameters()).device
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # hits among the first five, loss
    own = None if labels is None else torch.tensor(labels, device=device)
    was_training, started = model.training, time.perf_counter()
    model.eval()
    try:
        with torch.inference_mode():
            for images, targets in split.batches(want):
                x, y = normalize(images.to(device, non_blocking=True)), targets.to(device, non_blocking=True)
                y = y if own is None else own[y]
                with autocast():
                    logits = main_output(model(x))
                _count(logits.float(), y, num_classes, confusion, sums)
                advance(len(targets))
    finally:
        model.train(was_training)
    confusion, sums = total(confusion), total(sums)
    matrix = confusion.reshape(num_classes, num_classes).cpu()
    images_seen, (hits5, loss) = int(matrix.sum()), sums.tolist()
    count, seconds = max(images_seen, 1), time.perf_counter() - started
    top1 = 100 * int(matrix.diagonal().sum()) / count
    return Evaluation(top1, 100 * hits5 / count, loss / count, images_seen, seconds, matrix)


def _count(logits: Tensor, labels: Tensor, num_classes: int, confusion: Tensor, sums: Tensor) -> None:
    """Add a batch. A NaN among the logits counts as class 0, and shows in the loss."""
    top = logits.nan_to_num(nan=float("-inf")).topk(min(5, num_classes)).indices
    sums[0] += (top == labels[:, None]).any(1).sum()
    sums[1] += F.cross_entropy(logits, labels, reduction="sum")
    confusion += torch.bincount(labels * num_classes + top[:, 0], minlength=num_classes * num_classes)
