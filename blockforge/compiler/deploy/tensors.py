"""How the values of a convolution follow from those of the parts that it stands for.

A recipe is made with the rewriting, where only sizes are known, and followed where there are modules. Values are
computed in float64, on the CPU. Letters: O output channels, I input channels that a group reads, H W the kernel.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blockforge.blocks.base import AnyPlaced
from blockforge.blocks.filters import Filter, Placing
from blockforge.errors import BlockforgeError, OpError

Values = tuple[Tensor, Tensor | None]
"""weight_OIHW, and bias_O where there is one."""


class Recipe(ABC):
    """Makes the values of a convolution."""

    @abstractmethod
    def values(self, root: nn.Module) -> Values:
        """From the modules below `root`. Raises: BlockforgeError for modules that are not as they were built."""


@dataclass(frozen=True)
class New(Recipe):
    """Of a part that has no values."""

    def values(self, root: nn.Module) -> Values:
        raise AssertionError("it has none")


@dataclass(frozen=True)
class Own(Recipe):
    """The values of a part as it was. `path`: of its module."""

    path: str
    placed: AnyPlaced

    def values(self, root: nn.Module) -> Values:
        module = root.get_submodule(self.path)
        try:
            if not isinstance(module, _built(self.placed)) and type(module) not in _built(self.placed).__mro__[:-2]:
                raise OpError(f"a {type(module).__name__} stands where a {_built(self.placed).__name__} was built")
            weight, bias = self.placed.op.filter_values(module)
        except OpError as e:
            hint = "merge or take off what was put around the layers first"
            raise BlockforgeError(f"{self.path} cannot be folded: {e}\n  hint: {hint}") from None
        return _double(weight), None if bias is None else _double(bias)


@functools.lru_cache(1024)
def _built(placed: AnyPlaced) -> type[nn.Module]:
    """The class that a part builds."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return type(placed.build())


@dataclass(frozen=True)
class Named(Recipe):
    """A factor for each channel, and a term, that are parameters of `root` by these names."""

    weight: str
    bias: str | None

    def values(self, root: nn.Module) -> Values:
        weight = _double(getattr(root, self.weight))
        return weight[:, None, None, None], None if self.bias is None else _double(getattr(root, self.bias))


@dataclass(frozen=True)
class Ones(Recipe):
    """What changes nothing: a factor of 1 for each channel."""

    dim: int

    def values(self, root: nn.Module) -> Values:
        device = next((p.device for p in root.parameters() if p.is_meta), None)
        return torch.ones(self.dim, 1, 1, 1, dtype=torch.float64, device=device), None


@dataclass(frozen=True)
class Behind(Recipe):
    """A convolution, then a factor and a term for each of its channels."""

    conv: Recipe
    affine: Recipe

    def values(self, root: nn.Module) -> Values:
        (weight, bias), (scale, term) = self.conv.values(root), self.affine.values(root)
        scaled = bias * scale.flatten() if bias is not None else None
        return weight * scale, _added(scaled, term)


@dataclass(frozen=True)
class Before(Recipe):
    """A factor and a term for each channel, then a convolution whose padding does not see the term."""

    affine: Recipe
    conv: Recipe
    groups: int

    def values(self, root: nn.Module) -> Values:
        (scale, term), (weight, bias) = self.affine.values(root), self.conv.values(root)
        if term is not None:
            bias = _added(bias, (weight * self._by_output(term, weight)).sum((1, 2, 3)))
        return weight * self._by_output(scale, weight), bias

    def _by_output(self, value: Tensor, weight: Tensor) -> Tensor:
        """A value a channel as each output channel's group reads it."""
        groups = value.reshape(self.groups, weight.shape[1], 1, 1)
        return groups.repeat_interleave(len(weight) // self.groups, 0)


@dataclass(frozen=True)
class Member:
    """One of several convolutions that are added, `filter`, and where its kernel lies in the sum's."""

    recipe: Recipe
    filter: Filter
    factor: float
    placing: Placing


@dataclass(frozen=True)
class Added(Recipe):
    """The sum of convolutions of one map."""

    members: tuple[Member, ...]
    filter: Filter

    def values(self, root: nn.Module) -> Values:
        whole, total = None, None
        for member in self.members:
            weight, bias = member.recipe.values(root)
            placed = _embedded(weight, member, self.filter) * member.factor
            whole = placed if whole is None else whole + placed
            total = _added(total, bias * member.factor if bias is not None else None)
        assert whole is not None
        return whole, total


def _embedded(weight: Tensor, member: Member, into: Filter) -> Tensor:
    """A kernel among zeros: those of the larger kernel, and those of channels that only its groups read."""
    (outputs, read, height, width), own = weight.shape, member.filter
    whole = weight.new_zeros(outputs, into.in_chs // into.groups, *into.kernel)
    numbers = torch.arange(outputs, device=weight.device)
    first = numbers // (outputs // own.groups) * read
    in_group = numbers // (outputs // into.groups) * whole.shape[1]
    columns = (first - in_group)[:, None] + torch.arange(read, device=weight.device)
    row, column = member.placing
    whole[numbers[:, None], columns, row : row + height, column : column + width] = weight
    return whole


def _added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _double(value: Tensor) -> Tensor:
    value = value.detach()
    return value.double() if value.is_meta else value.to("cpu", torch.float64)
