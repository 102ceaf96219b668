"""MambaVision's mixer: a selective scan beside a branch without one."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, hidden_width
from blockforge.blocks.fields import Count, Ratio
from blockforge.blocks.layers import Conv2d, Linear, default_init, init_states
from blockforge.blocks.leaves import bias_of, on_nchw
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError
from blockforge.kernels.selective_scan import selective_scan, workspace


@mixer("mamba_vision")
class MambaVision(Mixer):
    """A linear layer, a depth-wise convolution along the tokens in row-major order, SiLU; the first half of
    the channels then goes through a selective scan, the second half does not; both side by side into a linear
    layer.

    Shape: x_BHWC -> y_BHWC, any H and W; usually the tiles of a stage with `window`.
    Cost: linear in the positions; the scan counts 9 L D N + L D multiply-adds by convention (L = H * W, D its
    channels, N = d_state), whatever way computes it.
    Raises: OpError if the inner width is odd where it is halved.
    Reference: MambaVision, CVPR 2025, https://arxiv.org/abs/2407.08083, section 3.2; table 4 for `branch` and
    `causal`. As in the released code the bias of the step sizes counts twice.
    """

    token_rule = "all"

    d_state: Count = 8
    """States of a channel of the scan."""
    d_conv: Count = 3
    """Length of the convolution along the tokens."""
    expand: Ratio = 1.0
    """Inner width, times dim."""
    dt_rank: Count | None = None
    """Width through which the step sizes are made; absent: dim / 16, rounded up."""
    branch: Literal["concat", "gate", "none"] = "concat"
    """What the second half is for: to stand beside the scan's result (`concat`), to multiply it (`gate`);
    `none`: there is none, all channels are scanned."""
    causal: bool = False
    """Whether the convolution reads earlier tokens alone, as in Mamba."""

    def inner(self, dim: int) -> int:
        return hidden_width(dim, self.expand, "expand")

    def scanned(self, dim: int) -> int:
        """Channels of the scan."""
        return self.inner(dim) if self.branch == "none" else self.inner(dim) // 2

    def joined(self, dim: int) -> int:
        """Channels that the last linear layer reads."""
        return self.inner(dim) if self.branch == "concat" else self.scanned(dim)

    def rank(self, dim: int) -> int:
        return self.dt_rank or math.ceil(dim / 16)

    def resolved(self, shape: Shape) -> MambaVision:
        return self.model_copy(update={"dt_rank": self.rank(shape.dim)})

    def check(self, shape: Shape) -> None:
        inner = self.inner(shape.dim)
        if inner % 2 and self.branch != "none":
            hint = (f"{inner - 1} or " if inner > 1 else "") + f"{inner + 1} would do, or branch: none"
            raise OpError(f"the inner width {inner} is odd, and a branch takes half of it", hint=hint)

    def cost(self, shape: Shape) -> Cost:
        dim, positions = shape.dim, shape.positions
        inner, scanned = self.inner(dim), self.scanned(dim)
        rank, scan = self.rank(dim), 9 * positions * scanned * self.d_state + positions * scanned
        cost = primitives.linear(dim, inner, positions, bias=False)
        cost += primitives.dwconv(inner, (1, self.d_conv), positions, bias=False)
        cost += primitives.linear(scanned, rank + 2 * self.d_state, positions, bias=False)
        cost += primitives.linear(rank, scanned, positions)
        cost += Cost(params=scanned * self.d_state + scanned, macs=scan, scan=scan)
        return cost + primitives.linear(self.joined(dim), dim, positions, bias=False)

    def workspace(self, shape: Shape) -> int:
        dim, positions = shape.dim, shape.positions
        inner, scanned = self.inner(dim), self.scanned(dim)
        made = self.rank(dim) + 2 * self.d_state + scanned  # states' weights and step sizes
        scan = workspace(positions, scanned, self.d_state, dense=self.branch == "none")
        scanning = positions * (inner + made) + scan
        joining = positions * (inner + scanned + self.joined(dim) * (self.branch != "none"))
        before, after = conv_padding(self.d_conv, self.causal)
        padded = inner * (positions + before + after) * (before != after)
        ending = positions * (self.joined(dim) + dim)
        return max(scanning, joining, ending, positions * 2 * inner + padded)

    def build(self, shape: Shape) -> nn.Module:
        dim = shape.dim
        widths = self.inner(dim), self.rank(dim), self.d_state
        return MambaVisionModule(dim, *widths, self.d_conv, branch=self.branch, causal=self.causal)


def conv_padding(d_conv: int, causal: bool) -> tuple[int, int]:
    """Zeros before and after the tokens, for a convolution of this length along them."""
    return (d_conv - 1, 0) if causal else ((d_conv - 1) // 2, d_conv // 2)


class MambaVisionModule(nn.Module):
    """See `MambaVision`. D are the scan's channels, N its states."""

    def __init__(
        self, dim: int, inner: int, dt_rank: int, d_state: int, d_conv: int, *, branch: str, causal: bool
    ) -> None:
        super().__init__()
        self.scanned, self.branch = inner if branch == "none" else inner // 2, branch
        self.sizes = [dt_rank, d_state, d_state]
        before, after = conv_padding(d_conv, causal)
        self.padding = (0, 0, before, after) if before != after else None
        sides = (0, before if before == after else 0)
        self.conv = default_init(Conv2d(inner, inner, (1, d_conv), padding=sides, groups=inner, bias=False))
        self.fc = Linear(dim, inner, bias=False)
        self.fc_scan = Linear(self.scanned, sum(self.sizes), bias=False)
        self.fc_dt = Linear(dt_rank, self.scanned)
        self.A_log = nn.Parameter(torch.empty(self.scanned, d_state))
        self.D = nn.Parameter(torch.empty(self.scanned))
        self.reset_parameters()
        self.proj = Linear(inner if branch == "concat" else self.scanned, dim, bias=False)

    def reset_parameters(self) -> None:
        init_states(self.A_log)
        nn.init.ones_(self.D)

    def no_weight_decay(self) -> set[str]:
        return {"A_log", "D"}

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(rearrange(x, "b h w c -> b 1 (h w) c"))
        return self.proj(y).reshape(x.shape)

    def mix(self, x_B1LC: Tensor) -> Tensor:
        """What `proj` reads, from tokens as a map of one row."""
        tokens = F.silu(self.convolved(self.fc(x_B1LC)))
        y, z = self.scan(tokens[..., : self.scanned]), tokens[..., self.scanned :]
        if self.branch == "none":
            return y
        return torch.cat([y, z], dim=-1) if self.branch == "concat" else y * z

    def convolved(self, x_B1LC: Tensor) -> Tensor:
        return on_nchw(self.conv, x_B1LC if self.padding is None else F.pad(x_B1LC, self.padding))

    def scan(self, x_B1LD: Tensor) -> Tensor:
        dt, B, C = self.fc_scan(x_B1LD).split(self.sizes, dim=-1)
        u_BDL, delta_BDL = (t.squeeze(1).mT for t in (x_B1LD, self.fc_dt(dt)))
        B_BGNL, C_BGNL = B.mT, C.mT  # one group
        A_DN = -self.A_log.exp()
        bias = bias_of(self.fc_dt, dt)  # once more, as released
        y_BDL = selective_scan(u_BDL, delta_BDL, A_DN, B_BGNL, C_BGNL, self.D, delta_bias=bias, delta_softplus=True)
        return y_BDL.mT.unsqueeze(1)
