"""NASWOT: how differently the activations of a network that was not trained see the images of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import ScoreError
from blockforge.search.objectives.network import at_initialisation, one_thread, prepared, seen
from blockforge.torch_private import TorchDispatchMode

GATES = frozenset(
    ("gelu", "silu", "relu", "leaky_relu", "prelu", "_prelu_kernel", "elu", "mish", "hardswish", "hardtanh")
)
"""Operators of torch that pass what is above 0 and hold back what is below (`hardtanh` is ReLU6, `_prelu_kernel`
what prelu calls where gradients are kept). Most have a form that works in place, too, with a `_` behind their name."""


@dataclass(frozen=True)
class NASWOT:
    """Logarithm of the determinant of the kernel of the images' activation codes.

    Each input of an activation (GELU, SiLU, ReLU and their kin, in modules or called as functions) gives a unit of
    code: whether it is above 0. K_ij is the number of units in which images i and j agree; the score is log |det K|,
    larger where the network tells the images apart. Units count once each, so K, and with it the score, grows with
    the width and depth of a network: compare it with its size.

    BatchNorm, drop path and LayerScale: see `at_initialisation`. What has no activation (softmax alone) is not seen.

    Reference: Neural Architecture Search without Training (ICML 2021), https://arxiv.org/abs/2006.04647.

    Attributes:
        size: longer side of the images; see `shrunk`.
        images: images in the batch.
        seed: of the initialisation and the choice of images.
        data: whose training images are seen; None: noise.
    """

    name: ClassVar[str] = "naswot"
    cost: ClassVar[float] = 1.0
    size: int = 96
    images: int = 16
    seed: int = 0
    data: str | None = None

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return f"NASWOT, which follows size, of untrained networks{seen(self.data)}"

    def __call__(self, arch: Architecture) -> float:
        """Raises: ScoreError if the network has no activation, or sees two images alike. DataError."""
        with one_thread():
            model, batches = prepared(arch, self.size, self.images, self.seed, self.data)
            return log_determinant(agreement(model, batches[0][0]))


def agreement(model: Backbone, x_BCHW: Tensor) -> Tensor:
    """K_BB: in how many units of their codes two images agree. The network is left as it was.

    Raises: ScoreError if it has no activation, or one sees what is not finite.
    """
    codes = _Codes(len(x_BCHW))
    with at_initialisation(model), torch.inference_mode(), codes:
        model(x_BCHW)
    if not codes.units:
        raise ScoreError("the network has no activation that naswot knows")
    return codes.kernel_BB


def log_determinant(kernel_BB: Tensor) -> float:
    """log |det K|. Raises: ScoreError if K is singular: two images have one code."""
    sign, log = torch.linalg.slogdet(kernel_BB)
    if sign <= 0 or not torch.isfinite(log):
        raise ScoreError("the network's activations do not tell two images apart")
    return float(log)


class _Codes(TorchDispatchMode):
    """Sees every operator that runs while it is active, whatever module or function calls it."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.kernel_BB = torch.zeros(images, images, dtype=torch.float64)
        self.units = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.name().partition("::")
        if namespace == "aten" and name.partition(".")[0].removesuffix("_") in GATES:
            self._add(args[0])
        return func(*args, **(kwargs or {}))

    def _add(self, x: Tensor) -> None:
        images = len(self.kernel_BB)
        assert x.shape[0] % images == 0, "an activation on a map whose first axis is not the batch (and its windows)"
        if not torch.isfinite(x).all():
            raise ScoreError("the input of an activation is not finite")
        code_BU = (x > 0).reshape(images, -1).float()
        on_B = code_BU.sum(1, dtype=torch.float64)
        both_BB = (code_BU @ code_BU.T).double()
        self.units += code_BU.shape[1]
        self.kernel_BB += 2 * both_BB - on_B[:, None] - on_B[None, :] + code_BU.shape[1]


naswot = NASWOT
