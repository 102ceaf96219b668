"""ZiCo: how steady the gradients of a network that was not trained are from batch to batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.errors import ScoreError
from blockforge.search.objectives.network import Batch, at_initialisation, one_thread, prepared, seen
from blockforge.train.optim import decay_groups


@dataclass(frozen=True)
class ZiCo:
    """Sum over weights of log sum_w mean |g_w| / std |g_w|, over the gradients of a few labelled batches.

    Weights are matrices and kernels, what weight decay is for: one term each, the inner sum over its elements. An
    element whose gradient does not vary counts nothing. Needs one derivative only, which our scans and fused
    attention have. A ratio does not change with the scale of a gradient; LayerScale still counts as 1 (see
    `at_initialisation`), since at 1e-6 no branch would see the ones before it.

    Limits: two batches are a poor estimate of a deviation, so its noise is large; a sum over weights grows with depth.

    Reference: ZiCo (ICLR 2023), https://arxiv.org/abs/2301.11300.

    Attributes:
        size: longer side of the images; see `shrunk`.
        images: images in a batch.
        batches: two or more.
        seed: of the initialisation and the choice of images.
        data: whose training images and labels are used; None: noise with random labels.
    """

    name: ClassVar[str] = "zico"
    cost: ClassVar[float] = 3.0
    size: int = 96
    images: int = 16
    batches: int = 2
    seed: int = 0
    data: str | None = None

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return f"ZiCo, which follows depth, of untrained networks{seen(self.data)}"

    def __call__(self, arch: Architecture) -> float:
        """Raises: ScoreError if a gradient is not finite, or none varies. DataError."""
        if self.batches < 2:
            raise ScoreError(f"zico compares batches, and {self.batches} is too few\n  hint: zico:batches=2")
        with one_thread():
            model, batches = prepared(arch, self.size, self.images, self.seed, self.data, self.batches)
            return zico_of(model, batches)


def zico_of(model: Backbone, batches: Sequence[Batch]) -> float:
    """The score of a network that was not trained, which is left as it was."""
    weights = decay_groups(model)[0]
    with at_initialisation(model):
        gradients = [_gradients(model, weights, x, labels) for x, labels in batches]
    terms = [steadiness(torch.stack(of_weight)) for of_weight in zip(*gradients, strict=True)]
    logs = [math.log(term) for term in terms if term > 0]
    if not logs:
        raise ScoreError("no gradient differs from batch to batch")
    return math.fsum(logs)


def steadiness(gradients: Tensor) -> float:
    """Sum over elements of mean |g| / std |g|; the first axis is the batches. Elements without deviation are left out.

    Raises: ScoreError if a gradient is not finite.
    """
    size = gradients.float().abs()
    if not torch.isfinite(size).all():
        raise ScoreError("a gradient is not finite")
    std = size.std(0, correction=0)
    ratio = torch.where(std > 0, size.mean(0) / std, 0.0)
    return float(ratio.sum(dtype=torch.float64))


def _gradients(model: Backbone, weights: list[Tensor], x_BCHW: Tensor, labels_B: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        logits = main_output(model(x_BCHW)).float()
        positions = labels_B.reshape(-1, *[1] * (logits.ndim - 2)).expand(-1, *logits.shape[2:])
        loss = F.cross_entropy(logits, positions)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return [g if g is not None else torch.zeros_like(w) for g, w in zip(gradients, weights, strict=True)]


zico = ZiCo
