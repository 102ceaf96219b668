"""The derivative of channel attention in standard operators, for backends that compute only the forward pass: it keeps
queries, keys and values, and makes the weights anew.

Letters: B batch, L positions of the map, P positions of queries and keys, C channels, N channels of a group,
J = 3 C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """What the backward pass reads."""
    x, *operands, ctx.groups = inputs
    ctx.save_for_backward(*operands)
    ctx.dtype = x.dtype


def backward(ctx: Any, dy_BLJ: Tensor) -> tuple[Tensor | None, ...]:
    """The weights once more, then every gradient."""
    q_BPC, k_BPC, v_BLC = ctx.saved_tensors
    parted = dy_BLJ.reshape(*v_BLC.shape[:2], 3, v_BLC.shape[2]).mT.reshape(dy_BLJ.shape)  # what vmap has rules for
    dx_BLC, dattended_BLC, dv_BLC = parted.float().chunk(3, dim=-1)
    of_groups, scale = [], q_BPC.shape[1] ** -0.5
    operands = (t.float().chunk(ctx.groups, dim=-1) for t in (q_BPC, k_BPC, v_BLC, dattended_BLC))
    for q_BPN, k_BPN, v_BLN, dattended_BLN in zip(*operands, strict=True):
        weights_BNN = torch.softmax(q_BPN.mT @ k_BPN * scale, dim=-1)
        of_weights_BNN = dattended_BLN.mT @ v_BLN
        along = (of_weights_BNN * weights_BNN).sum(-1, keepdim=True)
        of_scores_BNN = (of_weights_BNN - along) * weights_BNN * scale
        of_groups.append((k_BPN @ of_scores_BNN.mT, q_BPN @ of_scores_BNN, dattended_BLN @ weights_BNN))
    dq_BPC, dk_BPC, of_attended_BLC = (torch.cat(of, dim=-1) for of in zip(*of_groups, strict=True))
    of_operands = dq_BPC.to(q_BPC.dtype), dk_BPC.to(k_BPC.dtype), (dv_BLC + of_attended_BLC).to(v_BLC.dtype)
    return (dx_BLC.to(ctx.dtype), *of_operands, None)
