"""What a network gives: one tensor, or by the names of its heads several, the main one first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Outputs = Tensor | dict[str, Tensor]


def by_name(outputs: Outputs) -> dict[str, Tensor]:
    """Every output; that of a single head is called so."""
    return {"head": outputs} if isinstance(outputs, Tensor) else outputs


def main_output(outputs: Outputs) -> Tensor:
    """The output of the main head."""
    return next(iter(by_name(outputs).values()))


def loss_of(outputs: Outputs) -> Tensor:
    """The sum of the cross-entropies of all outputs with class 0, of a map at each position."""
    first, *others = (_loss(logits.float()) for logits in by_name(outputs).values())
    return sum(others, first)


def _loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.zeros(len(logits), *logits.shape[2:], dtype=torch.long, device=logits.device))
