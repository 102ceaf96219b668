"""Attention by torch, wherever it is asked for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from blockforge.kernels.costs import rehearsing
from blockforge.kernels.observers import is_transformed
from blockforge.torch_private import fused_attention


def attention(
    q_BNLD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """torch's attention; `mask` is added to the logits, or says which may be seen. `scale`: of the products; None: as
    usual."""
    if q_BNLD.is_meta and rehearsing() and _is_fused(q_BNLD, v_BNLD, mask):
        return fused_attention(q_BNLD, k_BNLD, v_BNLD, mask, scale)
    if is_transformed():
        # fused, a CPU's has rules neither for batches of vmap nor for forward mode nor for second derivatives
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask, scale=scale)
    return F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask, scale=scale)


def _is_fused(q_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None) -> bool:
    """Whether it is fused on a CPU, when memory is counted on the meta device (`costs.rehearsal`), where torch wants
    plain products: unless the mask is learnt, or values are wider than keys."""
    learnt, square = mask is not None and mask.requires_grad, q_BNLD.shape[-1] == v_BNLD.shape[-1]
    return square and not learnt
