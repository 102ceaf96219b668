"""Which units of a block matter: what the network's loss would feel of each, to first order.

The score of a unit is the sum over batches of (sum of weight * gradient over its entries)^2, the loss being that of the
network's own most likely class, so images need no labels. Source: Molchanov et al., Importance Estimation for Neural
Network Pruning (CVPR 2019), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.swapping.slots import Alternative
from blockforge.train.data import Batch
from blockforge.weights.symmetry import Axis, Units

Sort = tuple[str, int, tuple[Axis, ...]]
"""A slot, and how the units lie in it."""
BATCH = 16
"""Images of a gradient."""


def importances(
    model: Backbone, alternatives: Sequence[Alternative], images: Iterable[Batch]
) -> dict[Alternative, Tensor]:
    """For each alternative that keeps some of its block's units: (units,), how much the network needs each of them.

    Args:
        model: is in inference mode.
        images: batches as the network takes them.
    """
    sorts = {
        a: (a.slot.name, a.cut.number, a.cut.axes)
        for a in alternatives
        if isinstance(a.cut, Units) and not a.slot.is_sources
    }
    one_of_each = {sort: a for a, sort in sorts.items()}  # several forms of a block differ in how many units they keep
    totals: dict[Sort, Tensor] = {}
    parameters = dict(model.named_parameters())
    for batch, _ in images:
        for part in batch.to(next(model.parameters()).device).split(BATCH):
            logits = main_output(model(part))
            loss = F.cross_entropy(logits, logits.argmax(1))
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            felt = {
                name: p.detach() * g
                for (name, p), g in zip(parameters.items(), gradients, strict=True)
                if g is not None
            }
            for sort, alternative in one_of_each.items():
                prefix = "" if alternative.slot.is_width else f"{alternative.slot.name}.op."
                own = {n.removeprefix(prefix): t for n, t in felt.items() if n.startswith(prefix)}
                assert isinstance(alternative.cut, Units)
                score = alternative.cut.summed(own).square()
                totals[sort] = totals[sort] + score if sort in totals else score
    return {alternative: totals[sort] for alternative, sort in sorts.items()}
