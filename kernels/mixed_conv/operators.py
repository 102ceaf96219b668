"""Multi-head mixed convolution as an operator of torch, with its derivative and its shapes for compiled graphs: the
same for numba and triton.

A backend has `forward(x, weight, bias, mix, mix_bias, sides)` and `backward(dy, <the same>)`, which gives the
gradients of x, weight and mix (any tensor without mixing), and dy's sum over all positions, in float32. Operands:
weight (taps of all heads, C / n), bias (n, C / n), mix (C / n * m, n), float32 and contiguous; sides of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blockforge.kernels.mixed_conv import torch_impl
from blockforge.kernels.signature import Signature

Forward = Callable[..., Tensor]
Backward = Callable[..., tuple[Tensor, ...]]


def differentiable(backend: str, forward: Forward, backward: Backward) -> Callable[..., Tensor]:
    """The function `mixed_conv` of a backend, registered as `blockforge::mixed_conv_<backend>`."""

    def derive(
        dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, mix_bias: Tensor | None,
        sides: list[int],
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        dx, dweight, dmix, total = backward(dy, x, weight, bias, mix, mix_bias, sides)
        total_CO = total.unflatten(0, (weight.shape[1], -1))
        if mix is None:
            return dx, dweight, total_CO.t().contiguous(), None, None
        dbias = torch.einsum("con,co->nc", mix.unflatten(0, total_CO.shape), total_CO).contiguous()
        return dx, dweight, dbias, dmix, total

    operator = SIGNATURE.bind(f"mixed_conv_{backend}", forward, derive)

    def mixed_conv(
        x_BHWC: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], mix: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """See the package's `mixed_conv`. In float32; the backward pass keeps the inputs alone."""
        weight, bias = torch.cat([w.flatten(1).t().float() for w in weights]), torch.stack(list(biases)).float()
        mixing = (None, None) if mix is None else (mix[0].flatten(1).float().contiguous(), mix[1].float().contiguous())
        y: Tensor = operator(x_BHWC, weight, bias, *mixing, [w.shape[-1] for w in weights])
        return y

    return mixed_conv


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, mix_bias: Tensor | None, sides: list[int]
) -> Tensor:
    """The same with torch's own operators."""
    taps = weight.to(x.dtype).t().split([side * side for side in sides], dim=1)
    weights = [t.reshape(-1, 1, side, side) for t, side in zip(taps, sides, strict=True)]
    mixing = None if mix is None or mix_bias is None else (mix.to(x.dtype)[..., None, None], mix_bias.to(x.dtype))
    return torch_impl.mixed_conv(x, weights, bias.to(x.dtype).unbind(), mixing)


def _result(x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, *others: Any) -> Tensor:
    return x.new_empty(*x.shape[:3], bias.numel() if mix is None else mix.shape[0])


SIGNATURE = Signature(
    "Tensor x, Tensor weight, Tensor bias, Tensor? mix, Tensor? mix_bias, int[] sides", plain=_plain, result=_result
)
