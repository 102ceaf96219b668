"""Attention by torch, wherever it is asked for."""

from __future__ import annotations

from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from blockforge.kernels.costs import rehearsing
from blockforge.kernels.observers import is_transformed
from blockforge.torch_private import fused_attention


def attention(
    q_BNLD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """torch's `scaled_dot_product_attention`. Of the meta device torch wants plain products; while memory is counted
    there (`costs.rehearsal`) it is fused as on a CPU: unless the mask is learnt, or values are wider than keys. Fused,
    a CPU's has rules neither for batches of vmap nor for forward mode nor for second derivatives: transforms get the
    products."""
    learnt, square = mask is not None and mask.requires_grad, q_BNLD.shape[-1] == v_BNLD.shape[-1]
    if q_BNLD.is_meta and rehearsing() and square and not learnt:
        return fused_attention(q_BNLD, k_BNLD, v_BNLD, mask, scale)
    with sdpa_kernel(SDPBackend.MATH) if is_transformed() else nullcontext():
        return F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask, scale=scale)
