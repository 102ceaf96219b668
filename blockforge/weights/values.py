"""Tensors that cannot be weights, refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from blockforge.errors import WeightsError


def check_kinds(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that cannot be handled as weights are. Raises: WeightsError."""
    for name, tensor in tensors.items():
        if (kind := _kind(tensor)) is not None:
            raise WeightsError(f"{name[:200]} is {kind[0]}\n  hint: {kind[1]}")


def check_value(name: str, tensor: Tensor, own: Tensor) -> None:
    """Refuse what a tensor of the network, `own`, cannot take the values of. Raises: WeightsError."""
    if not own.is_floating_point() or tensor.is_meta:  # shapes alone are compared
        return
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        dtype = str(tensor.dtype).removeprefix("torch.")
        hint = "a quantised checkpoint must be dequantised first; weights are float32, float16 or bfloat16"
        raise WeightsError(f"{name[:200]} holds {dtype}\n  hint: {hint}")
    if bad := int(tensor.numel() - tensor.isfinite().sum()):
        what = "NaN" if bool(tensor.isnan().any()) else "infinite"
        hint = "its run diverged; an earlier checkpoint of it may be whole"
    elif bad := int(tensor.numel() - tensor.to(own.dtype).isfinite().sum()):
        what = f"beyond {str(own.dtype).removeprefix('torch.')}"
        hint = "load them in a wider type"
    if bad:
        raise WeightsError(f"{name[:200]}: {bad} of its {tensor.numel()} values are {what}\n  hint: {hint}")


def _kind(tensor: Tensor) -> tuple[str, str] | None:
    """What is wrong with a tensor's kind, and what to do."""
    if tensor.is_meta:
        return "on the meta device, without values", "save the checkpoint after the weights were loaded"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})", "dequantise the model before it is saved"
    if tensor.is_nested:
        return "nested", "weights have one shape"
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"sparse ({layout})", "tensor.to_dense() before it is saved"
    if tensor.is_complex():
        return f"complex ({str(tensor.dtype).removeprefix('torch.')})", "weights are real numbers"
    return None
