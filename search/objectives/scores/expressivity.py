"""AZ-NAS's expressivity: entropy of the features of a network that was not trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Layer
from blockforge.errors import ScoreError
from blockforge.search.objectives.network import at_initialisation, one_thread, prepared, seen


@dataclass(frozen=True)
class Expressivity:
    """Entropy of the features of an untrained network, summed over its layers.

    The network is initialised as its spec says and sees a batch of images. Let X be the output of a layer (its
    residual stream), one row for each image and position, centred; p_i its squared singular values, divided by
    their sum. The layer adds -sum_i p_i log p_i, which is log(dim) where all directions carry equal weight and 0
    where only one does. Mixers of any kind are treated alike: nothing but the outputs of layers is read.

    BatchNorm, drop path and LayerScale: see `at_initialisation`. Equal seeds give equal scores on one machine.

    Limits: a layer's share is at most the log of min(dim, images * positions), so that with small images wide
    late stages saturate; a sum over layers grows with depth; residual streams at initialisation change slowly
    from layer to layer; noise says nothing about the data. It is a first filter and no prediction.

    Reference: the expressivity term of AZ-NAS (CVPR 2024), https://arxiv.org/abs/2403.19232.

    Attributes:
        size: longer side of the images; see `shrunk`.
        images: images in the batch.
        seed: of the initialisation and the images.
        data: whose training images are seen; None: noise.
    """

    name: ClassVar[str] = "expressivity"
    cost: ClassVar[float] = 1.0
    size: int = 96
    images: int = 16
    seed: int = 0
    data: str | None = None

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return f"expressivity, which follows depth, of untrained networks{seen(self.data)}"

    def __call__(self, arch: Architecture) -> float:
        """Raises: ScoreError if a feature map is not finite. DataError."""
        with one_thread():
            model, batches = prepared(arch, self.size, self.images, self.seed, self.data)
            return expressivity_of(model, batches[0][0])


def expressivity_of(model: Backbone, x_BCHW: Tensor) -> float:
    """The score of a network that was not trained, which is left as it was."""
    entropies: list[float] = []
    layers = [m for m in model.modules() if isinstance(m, Layer)]
    hooks = [m.register_forward_hook(lambda _m, _i, y: entropies.append(feature_entropy(y))) for m in layers]
    try:
        with at_initialisation(model), torch.inference_mode():
            model(x_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return math.fsum(entropies)


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


expressivity = Expressivity
