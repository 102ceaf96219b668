"""Optimiser, learning rate and moving average of a recipe: torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from blockforge.torch_private import move_towards
from blockforge.train.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW or SGD on two groups of parameters: with weight decay, and without."""
    decayed, spared = decay_groups(model)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")  # one kernel for all parameters
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, betas=(recipe.betas[0], recipe.betas[1]), fused=fused)
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)


def decay_groups(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters that weight decay is for, and those it spares: norms, biases and what blocks exempt."""
    declared: Any = getattr(model, "no_weight_decay", None)
    exempt = declared() if callable(declared) else set()
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (spared if parameter.ndim <= 1 or name in exempt else decayed).append(parameter)
    return decayed, spared


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> None:
    """torch's `clip_grad_norm_`. On a CPU, where a look at the norm costs nothing, gradients that are short enough are
    not multiplied by 1: that reads and writes all of them."""
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if norm.device.type != "cpu" or not norm + 1e-6 <= max_norm:  # torch's own bound; NaN is not below it
        clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)


def lr_factor(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> learning rate as a share of `lr`, for torch's `LambdaLR`: warm-up from the first step, then down to
    `min_lr` behind the last. A function of the step alone, so a run goes on where it stopped."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    low, first = recipe.min_lr / recipe.lr, recipe.warmup_lr / recipe.lr

    def factor(step: int) -> float:
        if step < warmup:
            return first + (1 - first) * step / warmup if first else (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        if recipe.schedule == "constant":
            return 1.0
        fall = 1 - done if recipe.schedule == "linear" else (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return low + (1 - low) * fall

    return factor


def make_average(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of weights and buffers. Its decay rises to `decay`, so that a young average is not mostly
    the initialisation."""

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Tensor | int) -> None:
        n = int(count)
        keep = min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            move_towards(averages, values, 1 - keep)
        else:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
