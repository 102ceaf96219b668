"""A training-free score of a candidate, and the size baselines that it is compared with.

No such score is a measure of accuracy. Most of them grow with the network, so every report shows how far the
score orders the candidates as their size alone would (`size_correlations`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blockforge.api import build
from blockforge.compiler import Architecture
from blockforge.compiler.modules import Layer
from blockforge.errors import BlockforgeError
from blockforge.search.records import COSTS, TrialRecord

Objective = Callable[[Architecture], float]
"""Gives a candidate's score, larger is better. Called only for candidates within the budget; what it raises
is kept with the trial, and the search goes on."""


class ScoreError(BlockforgeError, ArithmeticError):
    """A score that is not a number."""


@dataclass(frozen=True)
class Expressivity:
    """Entropy of the features of an untrained network, summed over its layers.

    The network is initialised as its spec says and sees a batch of noise images. Let X be the output of a
    layer (its residual stream), one row for each image and position, centred; p_i its squared singular
    values, divided by their sum. The layer adds -sum_i p_i log p_i, which is log(dim) where all directions
    carry equal weight and 0 where only one does. Mixers of any kind are treated alike: nothing but the
    outputs of layers is read.

    BatchNorm normalises with the statistics of the batch, since running ones do not exist at initialisation;
    drop path and dropout are off. Equal seeds give equal scores on one machine.

    Limits: a layer's share is at most the log of min(dim, images * positions), so that with small images wide
    late stages saturate; a sum over layers grows with depth; residual streams at initialisation change slowly
    from layer to layer; noise says nothing about the data. It is a first filter and no prediction.

    Reference: the expressivity term of AZ-NAS (CVPR 2024), https://arxiv.org/abs/2403.19232.

    Attributes:
        size: longer side of the images, no larger than the spec's own, nor so small that the last map has
            less than 2 x 2 positions.
        images: images in the batch.
        seed: of the initialisation and the images.
    """

    size: int = 96
    images: int = 16
    seed: int = 0

    def __call__(self, arch: Architecture) -> float:
        """Raises: ScoreError if a feature map is not finite."""
        with _one_thread():
            model = build(arch, seed=self.seed)
            _statistics_of_the_batch(model)
            entropies: list[float] = []
            for layer in model.modules():
                if isinstance(layer, Layer):
                    layer.register_forward_hook(lambda _m, _i, y: entropies.append(feature_entropy(y)))
            with torch.inference_mode():
                model(self.batch(arch))
            return math.fsum(entropies)

    def batch(self, arch: Architecture) -> Tensor:
        """The noise images: of the spec's shape, scaled down."""
        image, last = arch.plan.input, arch.stage_shapes()[-1]
        reduction = math.ceil(max(image.size) / max(last.height, last.width))
        scale = min(1.0, max(self.size, 2 * reduction) / max(image.size))
        height, width = (max(1, round(side * scale)) for side in image.size)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.images, image.channels, height, width, generator=generator)


def feature_entropy(x: Tensor) -> float:
    """Entropy, in nats, of the spectrum of a map's features; 0 for a constant map.

    Raises: ScoreError if the map is not finite.
    """
    rows = x.flatten(0, -2).float()
    rows = rows - rows.mean(0)
    scale = rows.abs().amax()
    if not torch.isfinite(scale):
        raise ScoreError("a layer's output is not finite")
    if scale == 0:
        return 0.0
    rows = rows / scale  # so that squares neither overflow nor vanish
    gram = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    spectrum = torch.linalg.eigvalsh(gram).clamp_min(0)
    return float(torch.special.entr(spectrum / spectrum.sum()).sum())


def checked(score: Any) -> float:
    """The score as a float. Raises: ScoreError if it is not finite."""
    value = float(score)
    if not math.isfinite(value):
        raise ScoreError(f"the score is {value}")
    return value


def describe(objective: Objective) -> str:
    """What tells objectives apart: scores of different ones are never compared."""
    if isinstance(objective, Expressivity):
        return repr(objective)
    return f"{objective.__module__}:{getattr(objective, '__qualname__', type(objective).__qualname__)}"


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings; None where one is constant or there are fewer than two values."""
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(a, float), np.asarray(b, float)))
    pairs = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum() / pairs) if pairs else None


def size_correlations(records: Sequence[TrialRecord]) -> dict[str, float | None]:
    """Kendall's tau of the score with each size baseline, over scored candidates."""
    scored = [r for r in records if r.state == "scored"]
    return {cost: kendall([r.score or 0.0 for r in scored], [getattr(r, cost) for r in scored]) for cost in COSTS}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more threads, and lose much where other processes want the cores;
    and a score must not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _statistics_of_the_batch(model: nn.Module) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
