"""What an alternative costs in accuracy: how far the network's answers move when it alone stands in its slot."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.swapping.slots import Alternative
from blockforge.swapping.weights import Kept, standing_in
from blockforge.train.data import Batch

METHOD = "units by Taylor importance, statistics of norms moved, KL of the answers and how they move"
"""What scores are, in words: with another method a folder's scores are others, and this text is another."""
_SIZE = 8192
"""Numbers that are kept of an alternative: moves are longer where images and classes are many, and are then drawn
together at random, which keeps products but for noise."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a network's answers differ from those of the network that it comes from.

    Attributes:
        kl: mean Kullback-Leibler divergence of the classes' probabilities over the images, in nats.
        error: its standard error.
        agreement: per cent of the images with the same most likely class.
        top1: per cent of the images with the right one; None where the images' classes are not the network's.
        moved: how far each answer moved, see `moved`; nothing: that was not asked.
    """

    kl: float
    error: float
    agreement: float
    top1: float | None
    moved: str = field(default="", repr=False)


@torch.inference_mode()
def answers(model: Backbone, batches: Iterable[Batch]) -> Tensor:
    """Log-probabilities of the classes, a row an image."""
    place = next(model.parameters()).device
    return torch.cat([F.log_softmax(main_output(model(images.to(place))).float(), 1).cpu() for images, _ in batches])


def compare(teacher: Tensor, student: Tensor, labels: Tensor | None) -> Score:
    """The answers of a network beside those that it should give, as `answers` gives them."""
    kl = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1).double()
    error = float(kl.std()) / math.sqrt(len(kl)) if len(kl) > 1 else math.inf
    answer = student.argmax(1)
    top1 = _percent(answer == labels) if labels is not None else None
    return Score(float(kl.mean()), error, _percent(answer == teacher.argmax(1)), top1)


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())


def score(
    model: Backbone,
    alternative: Alternative,
    kept: Kept,
    teacher: Tensor,
    batches: Sequence[Batch],
    labels: Tensor | None,
) -> Score:
    """The score of an alternative alone in `model`, whose own answers are `teacher`."""
    with standing_in(model, alternative, kept) as other:
        given = answers(other, batches)
        return replace(compare(teacher, given, labels), moved=moved(teacher, given))


def moved(teacher: Tensor, student: Tensor) -> str:
    """How far answers moved, as text: (images, classes) in half precision, or `_SIZE` sums of them with random signs.

    Args:
        teacher, student: as `scores.answers` gives them.
    """
    shares = teacher.double().exp()
    move = student.double() - teacher.double()
    move = move - (move * shares).sum(1, keepdim=True)
    flat = (move * shares.sqrt()).flatten() / len(teacher) ** 0.5
    if len(flat) > _SIZE:
        draw = torch.Generator().manual_seed(0)
        place = torch.randint(_SIZE, flat.shape, generator=draw).to(flat.device)
        sign = torch.randint(2, flat.shape, generator=draw).to(flat) * 2 - 1
        flat = torch.zeros(_SIZE, dtype=flat.dtype, device=flat.device).index_add(0, place, flat * sign)
    return base64.b64encode(flat.cpu().numpy().astype("<f2").tobytes()).decode()
