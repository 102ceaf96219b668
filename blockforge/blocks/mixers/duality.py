"""What the mixers built on state space duality share (`ssd`, `bi_ssd`, `nc_ssd`): all but the scan."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, divisible, hidden_width
from blockforge.blocks.fields import Count, OddKernel, Ratio
from blockforge.blocks.layers import DWConv, Linear, default_init
from blockforge.blocks.leaves import on_nchw
from blockforge.errors import OpError

DEFAULT_HEAD_DIM = 64


class Sizes(NamedTuple):
    """Widths and counts of a module. `groups` are those of all directions."""

    dim: int
    inner: int
    num_heads: int
    d_state: int
    groups: int
    d_conv: int


class Duality(Mixer):
    """A mixer whose heads each keep one state matrix: its parameters, and the cost of all but the scan."""

    num_heads: Count | None = None
    """Heads; or say their width with `head_dim`."""
    head_dim: Count | None = None
    """Width of a head; about 64 if neither it nor `num_heads` is given."""
    d_state: Count = 64
    """States of a head."""
    expand: Ratio = 2.0
    """Inner width, times dim."""
    d_conv: OddKernel = 3
    """Side of the depth-wise kernel before the scan."""
    num_groups: Count = 1
    """Groups of heads that share their input and output weights of the states."""

    directions: ClassVar[int] = 1
    """Directions of the scan, each with its own share of the heads and with `num_groups` groups."""

    def inner(self, dim: int) -> int:
        return hidden_width(dim, self.expand, "expand")

    def heads(self, dim: int) -> int:
        """Number of heads on a map of width `dim`."""
        if self.num_heads:
            return self.num_heads
        fewest = 1 if self.head_dim else self.directions * self.num_groups
        return max(fewest, self.inner(dim) // (self.head_dim or DEFAULT_HEAD_DIM))

    def resolved(self, shape: Shape) -> Duality:
        return self.model_copy(update={"num_heads": self.heads(shape.dim), "head_dim": None})

    def states(self) -> int:
        """Width of the states' input weights, and of their output weights."""
        return self.directions * self.num_groups * self.d_state

    def sizes(self, dim: int) -> Sizes:
        """What its module is made with."""
        groups = self.directions * self.num_groups
        return Sizes(dim, self.inner(dim), self.heads(dim), self.d_state, groups, self.d_conv)

    def has_steps(self) -> bool:
        """Whether tokens have a step size."""
        return True

    def check(self, shape: Shape) -> None:
        if self.num_heads and self.head_dim:
            hint = "one follows from the other"
            raise OpError("num_heads and head_dim are both given", hint=hint, param="head_dim")
        inner, heads = self.inner(shape.dim), self.heads(shape.dim)
        if self.head_dim:
            divisible(inner, self.head_dim, "the inner width", "head_dim", "head_dim")
        divisible(inner, heads, "the inner width", "num_heads", "num_heads")
        if heads % self.directions:
            text = f"num_heads {heads} cannot be shared by {self.directions} directions"
            raise OpError(text, hint=f"a multiple of {self.directions}", param="num_heads")
        sharing = heads // self.directions
        divisible(sharing, self.num_groups, "the heads of a direction", "num_groups", "num_groups")

    def cost(self, shape: Shape) -> Cost:
        dim, positions = shape.dim, shape.positions
        inner, heads = self.inner(dim), self.heads(dim)
        convolved = inner + 2 * self.states()
        cost = primitives.linear(dim, inner + convolved, positions, bias=False)
        cost += primitives.dwconv(convolved, (self.d_conv, self.d_conv), positions)
        if self.has_steps():
            cost += primitives.linear(dim, heads, positions, bias=False) + Cost(params=2 * heads)
        cost += self.scan_cost(shape) + Cost(params=heads) + primitives.norm(inner)
        return cost + primitives.linear(inner, dim, positions, bias=False)

    @abstractmethod
    def scan_cost(self, shape: Shape) -> Cost:
        """Of what happens between the convolution and the norm, without parameters."""

    def workspace(self, shape: Shape) -> int:
        inner, positions = self.inner(shape.dim), shape.positions
        convolved = inner + 2 * self.states()
        steps = self.heads(shape.dim) * self.has_steps()
        mixing = positions * (convolved + inner + steps) + self.scan_workspace(shape)
        gating = positions * (2 * inner + max(inner, shape.dim))  # the norm's result, its product, the gate or the end
        return max(2 * positions * convolved, mixing, gating)

    @abstractmethod
    def scan_workspace(self, shape: Shape) -> int:
        """Elements alive in `DualityModule.scan` beside its arguments and one inner map."""


class DualityModule(nn.Module):
    """`proj(norm(scan(...)) * gate(x))`; see the subclasses for `scan`."""

    def __init__(
        self, dim: int, inner: int, num_heads: int, d_state: int, groups: int, d_conv: int, has_steps: bool = True
    ) -> None:
        super().__init__()
        self.inner, self.states, self.heads, self.groups = inner, groups * d_state, num_heads, groups
        self.gate = Linear(dim, self.inner, bias=False)
        self.fc = Linear(dim, self.inner + 2 * self.states, bias=False)
        self.conv = default_init(DWConv(self.inner + 2 * self.states, d_conv))
        self.fc_dt: Linear | None = None
        if has_steps:
            self.fc_dt = Linear(dim, self.heads, bias=False)
            self.dt_bias = nn.Parameter(torch.empty(self.heads))
            self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.reset_parameters()
        self.norm = nn.LayerNorm(self.inner)
        self.proj = Linear(self.inner, dim, bias=False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            if self.fc_dt is not None:
                self.dt_bias.copy_(initial_dt_bias(self.heads))
                self.A_log.uniform_(1, 16).log_()
            self.D.fill_(1)

    def no_weight_decay(self) -> set[str]:
        return {"dt_bias", "A_log", "D"} if self.fc_dt is not None else {"D"}

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x)).unflatten(1, x.shape[1:3])
        return self.proj(y * self.gate(x))

    def mix(self, x: Tensor) -> Tensor:
        """x_BHWC -> (B, L, inner): heads, steps and states' weights of all tokens, scanned."""
        convolved = F.silu(on_nchw(self.conv, self.fc(x))).flatten(1, 2)
        values, B, C = convolved.split([self.inner, self.states, self.states], dim=-1)
        values_BLHP = values.unflatten(-1, (self.heads, -1))
        steps_BLH = None
        if self.fc_dt is not None:
            steps_BLH = F.softplus(self.fc_dt(x).flatten(1, 2) + self.dt_bias)
        B_BLGN, C_BLGN = (t.unflatten(-1, (self.groups, -1)) for t in (B, C))
        return self.scan(values_BLHP, steps_BLH, B_BLGN, C_BLGN).flatten(2)

    def scan(self, values_BLHP: Tensor, steps_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
        """y_BLHP, the skip by `D` included."""
        raise NotImplementedError


def initial_dt_bias(size: int, low: float = 1e-3, high: float = 0.1) -> Tensor:
    """Biases whose softplus is spread evenly between `low` and `high` on a logarithmic scale."""
    dt = torch.empty(size).uniform_(math.log(low), math.log(high)).exp_()
    return dt + torch.log(-torch.expm1(-dt))
