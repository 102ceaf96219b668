"""The effective receptive field: which pixels the centre of the last map depends on, and how much.

Luo et al., NeurIPS 2016, https://arxiv.org/abs/1701.04128: the gradient of the centre position of a map with respect to
the image. As in RepLKNet's code (CVPR 2022, https://arxiv.org/abs/2203.06717) its positive channels are summed: the sum
of all of them is constant behind a LayerNorm. The share of the image that holds most of the field is measured as there
(table 10), by the smallest square around the centre, but of the field itself and not of its logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blockforge.analyze.record import grid
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError

SHARES = (0.2, 0.3, 0.5, 0.99)


@dataclass(frozen=True)
class ReceptiveField:
    """An effective receptive field.

    Attributes:
        field: (H, W), absolute gradient of a pixel, summed over its channels, mean over the images; the largest is 1.
        centre: row and column in pixels of the position that was looked at.
        sides: in pixels, of the smallest squares around the centre that hold the `SHARES` of the field.
        areas: the part of the image in each of them; the image's border cuts squares off.
    """

    field: Tensor
    centre: tuple[float, float]
    sides: tuple[float, ...]
    areas: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Areas and sides by share, as in `area_50`."""
        percent = [round(100 * share) for share in SHARES]
        areas = {f"area_{p}": area for p, area in zip(percent, self.areas, strict=True)}
        return areas | {f"side_{p}": side for p, side in zip(percent, self.sides, strict=True)}


def effective_receptive_field(
    model: Backbone, batches: Sequence[Tensor], *, stage: int = -1, advance: Callable[[], None] = lambda: None
) -> ReceptiveField:
    """The field of the centre of a stage's map.

    Args:
        batches: images_BCHW as the network sees them.
        stage: whose map; -1: the last.
        advance: called after each batch.
    Raises: AnalysisError if there is no such stage, or if the gradient is zero or not finite.
    """
    stages = len(model.arch.plan.stages)
    if not -stages <= stage < stages:
        raise AnalysisError(f"there is no stage {stage} in {model.arch.name}\n  hint: 0 to {stages - 1}, or -1")
    height, width = model.arch.plan.input.size
    index, centre = _centre(model, stage % stages)
    total = torch.zeros(height, width, dtype=torch.float64)
    for batch in batches:
        x = batch.detach().clone().requires_grad_()
        (maps,) = model.forward_intermediates(x, [stage], intermediates_only=True)
        (gradient,) = torch.autograd.grad(maps.flatten(2)[:, :, index].relu().sum(), x)
        total += gradient.abs().sum((0, 1)).double().cpu()
        advance()
    largest = total.max()
    if not torch.isfinite(largest) or largest == 0:
        how = "zero" if largest == 0 else "not finite"
        raise AnalysisError(f"{model.arch.name}: the gradient of the centre of stage {stage % stages} is {how}")
    return ReceptiveField((total / largest).float(), centre, *squares(total, centre, SHARES))


def _centre(model: Backbone, stage: int) -> tuple[int, tuple[float, float]]:
    """The index of the position at the centre of a stage's map, and the pixel at its own centre."""
    laid = grid(model.arch.stages[stage].end.last)
    row, column = laid.height // 2, laid.width // 2
    height, width = model.arch.plan.input.size
    pixel = ((row + 0.5) * height / laid.height - 0.5, (column + 0.5) * width / laid.width - 0.5)
    return row * laid.width + column, pixel


def squares(
    field_HW: Tensor, centre: tuple[float, float], shares: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sides of the smallest squares around `centre` that hold each share of the field, and the parts of the image
    in them."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in field_HW.shape)
    distance = torch.maximum((rows - centre[0]).abs()[:, None], (columns - centre[1]).abs()[None, :]).flatten()
    rings, ring = distance.unique(return_inverse=True)
    masses = torch.zeros(len(rings), dtype=torch.float64).index_add_(0, ring, field_HW.double().flatten()).cumsum(0)
    pixels = torch.bincount(ring, minlength=len(rings)).cumsum(0)
    wanted = torch.tensor(list(shares), dtype=torch.float64) * masses[-1]
    at = torch.searchsorted(masses, wanted).clamp_max(len(rings) - 1)
    return tuple((2 * rings[at] + 1).tolist()), tuple((pixels[at].double() / field_HW.numel()).tolist())
