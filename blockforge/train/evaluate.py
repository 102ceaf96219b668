"""Accuracy and loss of a network on labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.train.data import Split, Want
from blockforge.train.result import Evaluation

Sum = Callable[[Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[Any]]


def measure(
    model: nn.Module,
    split: Split,
    want: Want,
    normalize: Callable[[Tensor], Tensor],
    num_classes: int,
    *,
    device: torch.device | None = None,
    autocast: Autocast = nullcontext,
    total: Sum = lambda counts: counts,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Evaluate a network in evaluation mode; its mode is as before afterwards.

    Args:
        split, want: the images, and how this process reads its part of them.
        normalize: images_BCHW as they were read -> what the network sees.
        autocast: context of the forward pass.
        total: sums counts over all processes.
        advance: told the number of images after each batch.
    """
    device = device or next(model.parameters()).device
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # hits among the first five, loss
    was_training, started = model.training, time.perf_counter()
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in split.batches(want):
                x, y = normalize(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)
                with autocast():
                    logits = model(x)
                _count(logits.float(), y, num_classes, confusion, sums)
                advance(len(labels))
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
