"""Strip-MLP's token mixing: whole rows and columns with their neighbours, beside a local convolution."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape, divisible
from blockforge.blocks.computed import Computed
from blockforge.blocks.fields import OddKernel, Width
from blockforge.blocks.layers import Conv2d, DWConv, Linear, default_init, same_size
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.registry import mixer
from blockforge.errors import OpError
from blockforge.kernels.cpu import untouched
from blockforge.kernels.strip_mix import Axis, strip_mix

DEFAULT_PATCH = 2
Order = Literal["cascade", "parallel"]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Branches = Annotated[tuple[Literal["cgsmm", "lsmm"], ...], Field(min_length=1, max_length=2), BeforeValidator(_tuple)]


@mixer("strip_mixing")
class StripMixing(Mixer):
    """Token mixing of Strip-MLP: a depth-wise and a 1x1 convolution, then the branches share the channels
    equally and their results are fused.

    - cgsmm, cascade group strip mixing: in each group of channels every position of a row is mixed with every
      other one and with those of the neighbouring rows (`strip` rows in all), then the same along columns.
    - lsmm, local strip mixing: a 3x7 and a 7x3 depth-wise convolution and the identity, weighted for each
      image.

    Shape: x_BHWC -> y_BHWC; with cgsmm only the H and W it was built for: its parameters depend on them.
    Cost: with w channels a branch, strip * (H + W) * w multiply-adds a position and (H^2 + W^2) * strip *
        groups weights in cgsmm, 42 w a position in lsmm; 1x1 convolutions of 2 dim^2 and 4 w^2.
    Raises: OpError if the channels cannot be shared equally by branches, groups and patches.
    Reference: Strip-MLP, ICCV 2023, https://arxiv.org/abs/2307.11458.
    """

    strip: OddKernel = 3
    """Neighbouring rows (or columns) that take part in the mixing of one."""
    patch: Width | None = None
    """Channels of a group, which share weights; 2 if neither it nor `groups` is given."""
    groups: Width | None = None
    """Groups of channels in cgsmm, in place of `patch`."""
    order: Order = "cascade"
    """Columns are mixed after the rows, or beside them: parallel is the sum, with the same parameters."""
    branches: Branches = ("cgsmm", "lsmm")
    """What runs, in the order of the channels it gets."""

    def share(self, dim: int) -> int:
        """Channels of a branch."""
        return dim // len(self.branches)

    def num_groups(self, dim: int) -> int:
        """Groups of cgsmm on a map of width `dim`."""
        return self.groups or self.share(dim) // (self.patch or DEFAULT_PATCH)

    def resolved(self, shape: Shape) -> StripMixing:
        groups = self.num_groups(shape.dim) if "cgsmm" in self.branches else None
        return self.model_copy(update={"patch": None, "groups": groups})

    def check(self, shape: Shape) -> None:
        if len(set(self.branches)) < len(self.branches):
            text = f"branch {self.branches[0]} stands twice"
            raise OpError(text, hint="cgsmm, lsmm, or both", param="branches")
        divisible(shape.dim, len(self.branches), "dim", "the number of branches", "branches")
        if "cgsmm" not in self.branches:
            return
        if self.patch and self.groups:
            hint = "one follows from the other"
            raise OpError("patch and groups are both given", hint=hint, param="groups")
        by, name = (self.groups, "groups") if self.groups else (self.patch or DEFAULT_PATCH, "patch")
        divisible(self.share(shape.dim), by, "the width of cgsmm", name, name)

    def cost(self, shape: Shape) -> Cost:
        dim, positions, width = shape.dim, shape.positions, self.share(shape.dim)
        cost = primitives.norm(dim) + primitives.dwconv(dim, (3, 3), positions, bias=False)
        cost += primitives.linear(dim, dim, positions) + primitives.norm(dim)
        for branch in self.branches:
            part = Shape(shape.height, shape.width, width)
            cost += self._cgsmm(part) if branch == "cgsmm" else _lsmm(part)
        return cost + primitives.linear(dim, dim, positions, bias=False)

    def _cgsmm(self, part: Shape) -> Cost:
        groups = self.num_groups(part.dim * len(self.branches))
        cost = primitives.norm(part.dim)
        for length, lines in ((part.width, part.height), (part.height, part.width)):
            line, positions = length * groups, part.dim // groups * lines
            cost += primitives.conv(line, line, (1, self.strip), positions, groups=groups)
            cost += primitives.linear(2 * part.dim, part.dim, part.positions, bias=False)
            cost += Cost(params=(2 * length + 1) * part.dim)
        return cost

    def workspace(self, shape: Shape) -> int:
        part = shape.positions * self.share(shape.dim)
        inside = {"cgsmm": 4, "lsmm": 3}  # maps of a branch that live at once in it
        branches = max((done + inside[name]) * part for done, name in enumerate(self.branches))
        return max(shape.elements + branches, (len(self.branches) + 1) * shape.elements)

    def build(self, shape: Shape) -> nn.Module:
        return StripMixingModule(shape, self.num_groups(shape.dim), self.strip, self.order, self.branches)


def _lsmm(part: Shape) -> Cost:
    cost = primitives.dwconv(part.dim, (3, 7), part.positions, bias=False)
    cost += primitives.dwconv(part.dim, (7, 3), part.positions, bias=False)
    hidden = lsmm_hidden(part.dim)
    return cost + primitives.linear(part.dim, hidden, 1) + primitives.linear(hidden, 3 * part.dim, 1)


class StripMixingModule(nn.Module):
    """See `StripMixing`."""

    def __init__(self, shape: Shape, groups: int, strip: int, order: Order, branches: tuple[str, ...]) -> None:
        super().__init__()
        dim, part = shape.dim, shape._replace(dim=shape.dim // len(branches))
        self.norm = nn.BatchNorm2d(dim)
        self.dwconv = DWConv(dim, 3, bias=False)
        self.fc = Linear(dim, dim)
        self.bn = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        for name in branches:
            self.add_module(name, CGSMM(part, groups, strip, order) if name == "cgsmm" else LSMM(part.dim))
        self.names = branches
        self.fuse = Linear(dim, dim, bias=False)
        default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = on_nchw(self.bn, self.fc(on_nchw(self.dwconv, self.act(on_nchw(self.norm, x)))))
        parts = [self.act(part) for part in x.chunk(len(self.names), dim=-1)]  # contiguous again
        del x
        mixed = [self.get_submodule(name)(part) for name, part in zip(self.names, parts, strict=True)]
        del parts
        return self.fuse(torch.cat(mixed, dim=-1) if len(mixed) > 1 else mixed[0])


class CGSMM(nn.Module):
    """Cascade group strip mixing of rows, then columns; in parallel order of both, which are added."""

    def __init__(self, shape: Shape, groups: int, strip: int, order: Order) -> None:
        super().__init__()
        self.size, self.order = (shape.height, shape.width), order
        self.pos_rows = PositionTable(shape, shape.height)
        self.pos_columns = PositionTable(shape, shape.width)
        self.rows = StripConv(shape.width, groups, strip, "rows")
        self.columns = StripConv(shape.height, groups, strip, "columns")
        self.fuse_rows = Linear(2 * shape.dim, shape.dim, bias=False)
        self.fuse_columns = Linear(2 * shape.dim, shape.dim, bias=False)
        self.bn = nn.BatchNorm2d(shape.dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "strip_mixing")
        rows = self.fuse_rows(self.rows(x, self.pos_rows(), x))
        rows = self.act(on_nchw(self.bn, rows))
        base = rows if self.order == "cascade" else x
        columns = self.fuse_columns(self.columns(base, self.pos_columns(), x))
        return columns if self.order == "cascade" else rows + columns


class StripConv(nn.Module):
    """`strip_mix` of x_BHWC along rows or columns, joined with a map beside it: before it for rows, behind it for
    columns. Its weights are those of the grouped convolution that it is."""

    def __init__(self, length: int, groups: int, strip: int, axis: Axis) -> None:
        super().__init__()
        self.groups, self.axis = groups, axis
        self.conv = Conv2d(length * groups, length * groups, (1, strip), groups=groups)

    def forward(self, x: Tensor, pos_HWC: Tensor, beside: Tensor) -> Tensor:
        columns = self.axis == "columns"
        if untouched(self.conv, Conv2d):
            weight, bias = self.conv.weight, self.conv.bias
            assert bias is not None
            return strip_mix(x, pos_HWC, weight, bias, axis=self.axis, beside_BHWC=beside, beside_first=columns)
        y = self.convolved(x + pos_HWC, columns)
        return torch.cat((beside, y) if columns else (y, beside), dim=-1)

    def convolved(self, x: Tensor, columns: bool) -> Tensor:
        """By the convolution itself: the positions of a line, group by group, are its channels, and the channels that
        share weights and the lines its sides."""
        map_, lines = f"b {'l s' if columns else 's l'} (p g)", "b (g l) p s"
        return rearrange(
            self.conv(rearrange(x, f"{map_} -> {lines}", g=self.groups)), f"{lines} -> {map_}", g=self.groups
        )


class PositionTable(Computed):
    """A learnt vector for each distance between a position's column and its row, cut off at `reach`:
    () -> (H, W, C)."""

    def __init__(self, shape: Shape, reach: int) -> None:
        super().__init__()
        self.size, self.reach = (shape.height, shape.width), reach
        self.table = nn.Parameter(torch.empty(2 * reach + 1, shape.dim))
        self.reset_parameters()
        self.hold_computed()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.table, std=0.02)

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        rows, columns = (torch.arange(side, device=device) for side in self.size)
        return {"index": (columns[None, :] - rows[:, None]).clamp(-self.reach, self.reach) + self.reach}

    def forward(self) -> Tensor:
        return F.embedding(self.held("index", self.table), self.table)

    def no_weight_decay(self) -> set[str]:
        return {"table"}


class LSMM(nn.Module):
    """Local strip mixing: two long depth-wise convolutions and the identity, weighted channel by channel from
    the mean of their sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide = DWConv(dim, (3, 7), bias=False)
        self.tall = DWConv(dim, (7, 3), bias=False)
        hidden = lsmm_hidden(dim)
        self.reweight = nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, 3 * dim))

    def forward(self, x: Tensor) -> Tensor:
        wide, tall = on_nchw(self.wide, x), on_nchw(self.tall, x)
        mean_BC = wide.mean((1, 2)) + tall.mean((1, 2)) + x.mean((1, 2))
        weights = self.reweight(mean_BC)[:, None, None].unflatten(-1, (-1, 3)).softmax(-1)
        of_tall, of_wide, of_x = weights.unbind(-1)
        return (tall * of_tall).addcmul_(wide, of_wide).addcmul_(x, of_x)


def lsmm_hidden(dim: int) -> int:
    """Width inside the small network that weighs the parts."""
    return max(1, dim // 2)
