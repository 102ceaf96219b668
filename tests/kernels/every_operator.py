"""Small operands for every operator of `blockforge.kernels`: odd sizes, several groups, every optional tensor given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blockforge.kernels import operators
from blockforge.kernels.channel_attention import channel_attention
from blockforge.kernels.cross_scan import DIRECTIONS, cross_scan
from blockforge.kernels.dwconv import dwconv
from blockforge.kernels.linear import linear
from blockforge.kernels.mixed_conv import mixed_conv
from blockforge.kernels.nc_ssd import nc_ssd
from blockforge.kernels.selective_scan import selective_scan
from blockforge.kernels.ssd import ssd
from blockforge.kernels.strip_mix import strip_mix


@dataclass(frozen=True)
class Example:
    """An operator as a function of tensors.

    Attributes:
        run: calls it on the tensors; `backend` by name.
        make: the tensors in float64 for a batch; the first `mapped` of them have it as their first axis.
    """

    run: Callable[..., Tensor]
    make: Callable[[int], tuple[Tensor, ...]]
    mapped: int = 1

    def tensors(self, dtype: torch.dtype = torch.float32, batch: int = 2) -> list[Tensor]:
        """Leaves that require gradients."""
        return [t.to(dtype).requires_grad_() for t in self.make(batch)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(sum(shape) + seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def _selective_scan(batch: int, length: int = 7) -> tuple[Tensor, ...]:
    u, delta, B = noise(batch, 6, length), noise(batch, 6, length, seed=1), noise(batch, 2, 5, length)
    return u, delta, B, noise(batch, 2, 5, length, seed=1), -noise(6, 5).exp(), noise(6), noise(6, seed=1)


def _cross_scan(batch: int, side: int = 3) -> tuple[Tensor, ...]:
    x, dt, B = noise(batch, side, 4, 6), noise(batch, side, 4, 4, 2), noise(batch, side, 4, 4, 3)
    C, weight = noise(batch, side, 4, 4, 3, seed=1), noise(4, 6, 2)
    return x, dt, B, C, weight, -noise(4, 6, 3).exp(), noise(4, 6), noise(4, 6, seed=1)


def _ssd(batch: int) -> tuple[Tensor, ...]:
    x, dt, B, C = noise(batch, 7, 4, 3), noise(batch, 7, 4).exp(), noise(batch, 7, 2, 5), noise(batch, 7, 2, 5, seed=1)
    return x, dt, B, C, -noise(4).exp(), noise(4, seed=1)


def _mixed_conv(batch: int) -> tuple[Tensor, ...]:
    kernels = noise(3, 1, 3, 3), noise(3, 1, 5, 5), noise(3), noise(3, seed=1)
    return noise(batch, 5, 4, 6), *kernels, noise(6, 2, 1, 1), noise(6)


def _strip_mix(batch: int) -> tuple[Tensor, ...]:
    return noise(batch, 3, 4, 6), noise(batch, 3, 4, 6, seed=1), noise(3, 4, 6), noise(8, 4, 1, 3), noise(8)


EXAMPLES: dict[str, Example] = {
    "selective_scan": Example(
        lambda u, d, B, C, A, D, bias, **how: selective_scan(
            u, d, A, B, C, D, delta_bias=bias, delta_softplus=True, reverse=True, **how
        ),
        _selective_scan,
        4,
    ),
    "cross_scan": Example(
        lambda x, dt, B, C, w, A, D, bias, **how: cross_scan(
            x, dt, B, C, w, A, D, dt_bias=bias, directions=DIRECTIONS, window=2, **how
        ),
        _cross_scan,
        4,
    ),
    "ssd": Example(lambda x, dt, B, C, A, D, **how: ssd(x, dt, A, B, C, D, reverse=True, **how), _ssd, 4),
    "nc_ssd": Example(lambda x, m, B, C, A, D, **how: nc_ssd(x, m * A, B, C, D, **how), _ssd, 4),
    "mixed_conv": Example(
        lambda x, w3, w5, b3, b5, mix, bias, **how: mixed_conv(x, [w3, w5], [b3, b5], (mix, bias), **how), _mixed_conv
    ),
    "channel_attention": Example(
        lambda x, q, k, v, **how: channel_attention(x, q, k, v, 2, **how),
        lambda batch: (noise(batch, 7, 6), noise(batch, 5, 6), noise(batch, 5, 6, seed=1), noise(batch, 7, 6, seed=1)),
        4,
    ),
    "strip_mix": Example(
        lambda x, beside, pos, w, b, **how: strip_mix(x, pos, w, b, axis="rows", beside_BHWC=beside, **how),
        _strip_mix,
        2,
    ),
    "dwconv": Example(dwconv, lambda batch: (noise(batch, 5, 4, 6), noise(6, 1, 3, 5), noise(6))),
    # large enough for oneDNN's own product
    "linear": Example(linear, lambda batch: (noise(batch, 4, 4, 260) / 16, noise(257, 260), noise(257))),
}


def test_all_are_here() -> None:
    assert set(EXAMPLES) == set(operators())


def backends(name: str, x: Tensor) -> list[str]:
    """Of an operator, those that run `x` when asked for by name, without Triton's interpreter."""
    facts: dict[str, Any] = {"double": x.dtype == torch.float64} if "scan" in name else {}
    return [b for b in operators()[name].available(x, **facts) if b != "triton"]


def results(name: str, backend: str, tensors: list[Tensor]) -> list[Tensor]:
    """The output, and the gradient of every tensor."""
    y = EXAMPLES[name].run(*tensors, backend=backend)
    return [y, *torch.autograd.grad(y, tensors, torch.ones_like(y).cumsum(-1))]
