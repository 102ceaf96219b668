"""Centred kernel alignment: how alike the representations of two layers are.

Linear CKA from minibatches with the unbiased estimator of HSIC, as in Nguyen, Raghu and Kornblith (ICLR 2021,
https://arxiv.org/abs/2010.15327, section 2): sums over batches of HSIC_1(K, L), with K = X X^T and L = Y Y^T of the
flattened maps, and their ratio at the end. CKA itself: Kornblith et al., ICML 2019, https://arxiv.org/abs/1905.00414.

Tensors: M and N layers of the two networks, B images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blockforge.analyze.record import run, units
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError

FEWEST = 4
"""Images of a batch below which the estimator does not exist."""


@dataclass(frozen=True)
class Similarity:
    """CKA between layers.

    Attributes:
        rows, columns: names of the layers.
        values: (M, N), about 0 (unrelated) to 1 (equal up to rotation and scale); an estimate may lie slightly outside,
            and is NaN where a layer gives every image the same.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Plain data; what could not be estimated is None."""
        values = [[v if math.isfinite(v) else None for v in row] for row in self.values.tolist()]
        return {"rows": list(self.rows), "columns": list(self.columns), "cka": values}


def similarity(
    model: Backbone,
    batches: Sequence[Tensor],
    other: Backbone | None = None,
    other_batches: Sequence[Tensor] | None = None,
    *,
    stage: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Similarity:
    """CKA of the stem, each downsampling and each layer with every other one.

    Args:
        batches: images_BCHW as the network sees them; batches of fewer than four are left out.
        other: another network, whose layers become the columns; None: the network itself.
        other_batches: the same images as the other network sees them; None: as they are.
        stage: only this stage's downsampling and layers.
        advance: called after each batch.
    Raises: AnalysisError if no batch is large enough, or if there is no such stage.
    """
    names = layer_names(model, stage)
    names_y = layer_names(other, stage) if other is not None else names
    xy, xx, yy = (torch.zeros(0) for _ in range(3))
    used = 0
    for x, y in zip(batches, other_batches if other_batches is not None else batches, strict=True):
        if len(x) < FEWEST:
            continue
        K_MBB = grams(model, x, names)
        L_NBB = grams(other, y, names_y) if other is not None else K_MBB
        parts = (hsic(K_MBB, L_NBB), hsic_self(K_MBB), hsic_self(L_NBB))
        xy, xx, yy = parts if not used else tuple(a + b for a, b in zip((xy, xx, yy), parts, strict=True))
        used += 1
        advance()
    if not used:
        raise AnalysisError(f"CKA needs batches of {FEWEST} images or more\n  hint: --images 16 --batch 16")
    scale = (xx.clamp_min(0)[:, None] * yy.clamp_min(0)[None, :]).sqrt()
    cka_MN = torch.where(scale > 0, xy / scale, torch.nan)
    return Similarity(tuple(names.values()), tuple(names_y.values()), cka_MN)


def layer_names(model: Backbone, stage: int | None = None) -> dict[str, str]:
    """The units to compare, by the node that gives their value."""
    stages = len(model.arch.plan.stages)
    if stage is not None and not 0 <= stage < stages:
        raise AnalysisError(f"there is no stage {stage} in {model.arch.name}\n  hint: 0 to {stages - 1}")
    return {unit.last.name: unit.name for unit in units(model.arch) if stage is None or unit.stage == stage}


def grams(model: Backbone, x_BCHW: Tensor, names: dict[str, str]) -> Tensor:
    """The Gram matrix of every layer's centred maps, one image a row: (M, B, B) in double precision."""
    gram_of: dict[str, Tensor] = {}

    def visit(node: str, value: Tensor) -> None:
        if node in names:
            rows = value.reshape(len(x_BCHW), -1).double()  # the tiles of an image lie behind each other
            rows = rows - rows.mean(0)
            gram_of[node] = rows @ rows.T

    with torch.no_grad():
        run(model, x_BCHW, visit)
    return torch.stack([gram_of[node] for node in names]).cpu()


def hsic(K_MBB: Tensor, L_NBB: Tensor) -> Tensor:
    """Unbiased estimates of HSIC of every pair, (M, N), which leave each image's product with itself out."""
    n = K_MBB.shape[-1]
    K, L = _hollow(K_MBB), _hollow(L_NBB)
    traces = K.flatten(1) @ L.flatten(1).T
    k, l = K.sum(-1), L.sum(-1)  # noqa: E741
    totals = k.sum(-1)[:, None] * l.sum(-1)[None, :] / ((n - 1) * (n - 2))
    return (traces + totals - 2 / (n - 2) * (k @ l.T)) / (n * (n - 3))


def hsic_self(K_MBB: Tensor) -> Tensor:
    """HSIC of each layer with itself, (M)."""
    return torch.stack([hsic(K[None], K[None])[0, 0] for K in K_MBB])


def _hollow(K_MBB: Tensor) -> Tensor:
    """With zeros on the diagonal."""
    return K_MBB * (1 - torch.eye(K_MBB.shape[-1], dtype=K_MBB.dtype))
