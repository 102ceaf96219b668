"""VMamba's mixer: selective scans over a map in several directions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.silu import SiLU
from blockforge.blocks.base import Cost, Mixer, Shape, hidden_width
from blockforge.blocks.fields import ActParam, Count, NormParam, OddKernel, Ratio, Width
from blockforge.blocks.layers import ConvInit, DWConv, Linear, default_init, init_states
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.blocks.norms.group_norm import GroupNorm
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError
from blockforge.kernels.cpu import untouched
from blockforge.kernels.cross_scan import Direction, cross_scan, workspace

Directions = Annotated[
    tuple[Direction, ...],
    BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    Field(min_length=1, max_length=16),
]
_NAMED: dict[str, tuple[Direction, ...]] = {
    "cross": ("rows", "columns", "rows_back", "columns_back"),
    "bidirectional": ("rows", "rows_back"),
    "one_way": ("rows",),
}


@mixer("ss2d")
class SS2D(Mixer):
    """Linear layer, depth-wise convolution, activation; then a selective scan in each direction, every one
    with its own steps, B and C from a linear layer; their sum through a norm and a linear layer.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: linear in the positions; a scan counts 9 L D N + L D multiply-adds by convention (L = H * W,
    D = expand * dim channels, N = d_state), whatever way computes it.
    Raises: OpError if `dim` is given and the map is not as wide as the scan.
    Reference: VMamba, https://arxiv.org/abs/2401.10166; for `window` LocalMamba,
    https://arxiv.org/abs/2403.09338.
    """

    d_state: Count = 1
    """States of a channel of a scan."""
    expand: Ratio = 2.0
    """Width of the scans, times dim."""
    d_conv: OddKernel | None = 3
    """Side of the depth-wise convolution; null: none."""
    dt_rank: Count | None = None
    """Width through which the step sizes are made; absent: dim / 16, rounded up."""
    scans: Literal["cross", "bidirectional", "one_way"] | Directions = "cross"
    """Directions: rows, columns, rows_back, columns_back, each as often as one likes; cross is all four,
    bidirectional the rows both ways, one_way the rows."""
    window: Count | None = None
    """Scan tile by tile, in tiles of this side; absent: in whole lines."""
    act: ActParam = SiLU()
    """Activation before the scans, and of the gate."""
    gate: bool = False
    """Whether the input, through a linear layer and the activation, multiplies the normalised result."""
    out_norm: NormParam = GroupNorm()
    """Norm of the scans' sum, or none."""
    bias: bool = True
    """Bias of the linear layers."""
    conv_bias: bool = True
    """Bias of the depth-wise convolution."""
    init: ConvInit = "uniform"
    """How the convolution starts: as torch does, or from a normal of deviation 0.02 or variance 2 / fan_out."""
    dim: Width | None = None
    """Width that it gives where it reads a map as wide as its scans (with the gate twice that), without an
    input layer of its own; an aggregator feeds it so. Absent: as wide as what it reads."""

    def given(self, shape: Shape) -> int:
        """The width that it gives."""
        return self.dim or shape.dim

    def inner(self, dim: int) -> int:
        """Channels of a scan."""
        return hidden_width(dim, self.expand, "expand")

    def rank(self, dim: int) -> int:
        return self.dt_rank or math.ceil(dim / 16)

    def resolved(self, shape: Shape) -> SS2D:
        return self.model_copy(update={"dt_rank": self.rank(self.given(shape)), "scans": self.directions})

    @property
    def directions(self) -> tuple[Direction, ...]:
        return _NAMED[self.scans] if isinstance(self.scans, str) else self.scans

    def fed(self, dim: int) -> tuple[Mixer, int]:
        return self.model_copy(update={"dim": dim}), self.inner(dim) * (1 + self.gate)

    def check(self, shape: Shape) -> None:
        inner = self.inner(self.given(shape))
        if self.dim is not None and shape.dim != inner * (1 + self.gate):
            text = f"with dim {self.dim} it reads a map of width {inner * (1 + self.gate)}, not {shape.dim}"
            raise OpError(text, hint="leave dim to the aggregators", param="dim")
        if self.out_norm is not None:
            self.out_norm.check(shape._replace(dim=inner))

    def out_shape(self, shape: Shape) -> Shape:
        return shape._replace(dim=self.given(shape))

    def cost(self, shape: Shape) -> Cost:
        dim, positions = self.given(shape), shape.positions
        inner, rank = self.inner(dim), self.rank(dim)
        cost = primitives.linear(inner, dim, positions, bias=self.bias)
        if self.dim is None:
            cost += primitives.linear(dim, inner * (1 + self.gate), positions, bias=self.bias)
        if self.d_conv is not None:
            cost += primitives.dwconv(inner, (self.d_conv, self.d_conv), positions, bias=self.conv_bias)
        for _ in self.directions:
            cost += primitives.linear(inner, rank + 2 * self.d_state, positions, bias=False)
            cost += primitives.linear(rank, inner, positions)
            cost += primitives.scan(inner, self.d_state, positions) + Cost(params=inner * (self.d_state + 1))
        scanned = shape._replace(dim=inner)
        return cost + self.act.cost(scanned) + (self.out_norm.cost(scanned) if self.out_norm is not None else Cost())

    def workspace(self, shape: Shape) -> int:
        dim, positions = self.given(shape), shape.positions
        inner = shape._replace(dim=self.inner(dim))
        map_, kept, act = inner.elements, inner.elements * self.gate, self.act.workspace(inner)
        activated = act > 0  # else it gives what it is given
        entered = (map_ + kept) * (self.dim is None)
        gate = kept if activated or not self.gate else entered  # as it is, it keeps the other half alive
        own = map_ if activated or self.d_conv is not None else entered - gate  # of what is scanned
        made = len(self.directions) * positions * (self.rank(dim) + 2 * self.d_state)
        scan = workspace(positions, inner.dim, self.d_state, self.rank(dim), self.directions, self.window)
        norm = map_ + self.out_norm.workspace(inner) if self.out_norm is not None else map_
        return max(
            entered + kept * activated + (act if self.d_conv is None else map_),
            map_ * (self.d_conv is not None) + gate + act,
            gate + own + made + scan,
            gate + max(norm, map_ + kept + positions * dim),
        )

    def build(self, shape: Shape) -> nn.Module:
        dim = self.given(shape)
        inner = shape._replace(dim=self.inner(dim))
        return SS2DModule(
            dim,
            inner.dim,
            self.rank(dim),
            self.d_state,
            self.directions,
            norm=self.out_norm.build(inner) if self.out_norm is not None else nn.Identity(),
            window=self.window,
            d_conv=self.d_conv,
            act=self.act.build(inner),
            gate=self.gate,
            bias=self.bias,
            conv_bias=self.conv_bias,
            init=self.init,
            is_fed=self.dim is not None,
        )


class SS2DModule(nn.Module):
    """See `SS2D`. `inner` are the channels of a scan; `is_fed`: an aggregator gives a map as wide as the scans."""

    def __init__(
        self,
        dim: int,
        inner: int,
        dt_rank: int,
        d_state: int,
        directions: tuple[Direction, ...],
        *,
        norm: nn.Module,
        act: nn.Module,
        window: int | None = None,
        d_conv: int | None = 3,
        gate: bool = False,
        bias: bool = True,
        conv_bias: bool = True,
        init: ConvInit = "uniform",
        is_fed: bool = False,
    ) -> None:
        super().__init__()
        self.gate, self.window, self.directions = gate, window, directions
        self.sizes = [dt_rank, d_state, d_state]
        self.in_proj = Linear(dim, inner * (1 + gate), bias=bias) if not is_fed else nn.Identity()
        self.conv = DWConv(inner, d_conv, bias=conv_bias, init=init) if d_conv is not None else nn.Identity()
        self.act = act
        self.x_proj = default_init(Linear(inner, len(directions) * sum(self.sizes), bias=False))
        self.dt_proj = nn.ModuleList(Linear(dt_rank, inner, bias=False) for _ in directions)
        self.dt_bias = nn.Parameter(torch.empty(len(directions), inner))
        self.A_log = nn.Parameter(torch.empty(len(directions), inner, d_state))
        self.D = nn.Parameter(torch.empty(len(directions), inner))
        self.reset_parameters()
        self.out_norm, self.norm_layout = norm, layout_of(norm)
        self.conv_layout = layout_of(self.conv)
        self.out_proj = Linear(inner, dim, bias=bias)
        for proj in self.dt_proj:
            nn.init.uniform_(proj.get_parameter("weight"), -(dt_rank**-0.5), dt_rank**-0.5)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.dt_bias.copy_(_first_steps(*self.dt_bias.shape))
        init_states(self.A_log)
        nn.init.ones_(self.D)

    def no_weight_decay(self) -> set[str]:
        return {"A_log", "D"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        z = None
        if self.gate:
            x, z = x.chunk(2, dim=-1)
            z = self.act(z)
        x = on_map(self.conv, x, self.conv_layout)
        x = self.act(x)
        x = self.scan(x)
        x = on_map(self.out_norm, x, self.norm_layout)
        return self.out_proj(x if z is None else x * z)

    def scan(self, x: Tensor) -> Tensor:
        """The sum of the scans in all directions, x_BHWD -> y_BHWD."""
        projected = self.x_proj(x).unflatten(-1, (len(self.directions), -1))
        dt, B, C = projected.split(self.sizes, dim=-1)
        weight: Tensor | None = None
        if all(untouched(proj, Linear) for proj in self.dt_proj):
            weight = torch.stack([proj.weight for proj in self.dt_proj])  # type: ignore[misc]
        else:
            dt = torch.stack([proj(t) for proj, t in zip(self.dt_proj, dt.unbind(-2), strict=True)], dim=-2)
        return cross_scan(
            x,
            dt,
            B,
            C,
            weight,
            -self.A_log.exp(),
            self.D,
            dt_bias=self.dt_bias,
            directions=self.directions,
            window=self.window,
        )


def _first_steps(count: int, dim: int) -> Tensor:
    """Biases whose softplus lies between 0.001 and 0.1, evenly in the logarithm: Mamba's start."""
    low, high = math.log(0.001), math.log(0.1)
    step = torch.exp(torch.rand(count, dim) * (high - low) + low)
    return step + torch.log(-torch.expm1(-step))
