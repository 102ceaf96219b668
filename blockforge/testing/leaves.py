"""What tools assume of a block's leaves: a hook on one fires, and what is put in its place is used.

Leaves are the modules inside a block that have parameters or buffers of torch's classes: linear layers, convolutions,
norms. Adapters, quantisers, pruners and frozen norms hook, wrap or replace them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from blockforge.blocks.base import Op, Place
from blockforge.blocks.leaves import layout_of
from blockforge.testing.examples import example_inputs, example_module
from blockforge.torch_private import BatchNorm, Conv, tree_map_only

LEAVES = (nn.Linear, nn.LayerNorm, nn.GroupNorm, Conv, BatchNorm)
NOISE = 1e-5


class Wrapped(nn.Module):
    """What adapters are: a module of another class around the leaf, of which it shows nothing."""

    def __init__(self, inner: nn.Module, times: float = 1.0) -> None:
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y * self.times if self.times != 1 else y


class Frozen(nn.Module):
    """A batch norm as detectors freeze it: four buffers, of x_BCHW."""

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (b.view(1, -1, 1, 1) for b in self.buffers())
        scale = weight * (var + self.eps).rsqrt()
        return x * scale + (bias - mean * scale)


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def check_layout(op: Op[*Place], *place: *Place) -> None:
    """A block whose module is a leaf of torch's says what that takes; every other one works on x_BHWC."""
    actual = layout_of(op.build(*place))
    assert op.layout == actual, f"layout is {op.layout}, a {type(op.build(*place)).__name__} works on {actual}"


def check_hooks(op: Op[*Place], *place: *Place) -> None:
    """Forward hooks, their likes before it and full backward hooks of every leaf fire, change nothing, and what they
    keep stays as it was."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    with torch.no_grad():
        wanted = module(*x)
    fired: dict[str, set[str]] = {name: set() for name, _ in leaves(module)}
    kept: list[tuple[Tensor, Tensor, str]] = []
    for name, leaf in leaves(module):
        leaf.register_forward_pre_hook(lambda _m, _args, name=name: fired[name].add("pre"))  # type: ignore[misc]
        leaf.register_forward_hook(lambda _m, _a, y, name=name: kept.append((y, y.detach().clone(), name)))  # type: ignore[misc]
    with torch.no_grad():
        hooked = module(*x)
    _same(hooked, wanted, "with hooks on its leaves it gives another result")
    missing = fired.keys() - {name for *_, name in kept}
    missing |= {name for name, kinds in fired.items() if "pre" not in kinds}
    assert not missing, f"no hook fires of {sorted(missing)}"
    for y, as_given, name in kept:
        assert torch.equal(y, as_given), f"what '{name}' gave is overwritten while a hook holds it"
    for name, leaf in leaves(module):
        leaf.register_full_backward_hook(lambda _m, _dx, _dy, name=name: fired[name].add("back"))  # type: ignore[misc]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing")  # of a leaf that reads positions, not a map
        module(*_requiring(x)).square().sum().backward()
    missing = {name for name, kinds in fired.items() if "back" not in kinds}
    assert not missing, f"no backward hook fires of {sorted(missing)}"


def check_replaced(op: Op[*Place], *place: *Place) -> None:
    """A module around a leaf, whatever its class, is called in its place: alone, it changes nothing, and one that gives
    other values has its effect. Frozen batch norms give what they froze."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    with torch.no_grad():
        wanted = module(*x)
        _same(_changed(module, Wrapped)(*x), wanted, "with a module around every leaf it gives another result")
        frozen = _changed(module, lambda m: Frozen(m) if isinstance(m, BatchNorm) else m)
        _same(frozen(*x), wanted, "with its batch norms frozen it gives another result")
        for name, _ in leaves(module):
            replaced = _changed(module, lambda m: Wrapped(m, 2.0), name)(*x)
            scaled = _changed(module, _scaled, name)(*x)
            _same(replaced, scaled, f"what stands in the place of '{name}' is not what is computed")


def check_parametrized(op: Op[*Place], *place: *Place) -> None:
    """Parametrised and pruned weights are those that it computes with, and their gradients arrive."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    names = [name for name, leaf in leaves(module) if getattr(leaf, "weight", None) is not None]
    for name in names:
        doubled, scaled = copy.deepcopy(module), copy.deepcopy(module)
        parametrize.register_parametrization(doubled.get_submodule(name), "weight", _Doubled())
        pruned, masked = copy.deepcopy(module), copy.deepcopy(module)
        leaf: Any = pruned.get_submodule(name)
        prune.random_unstructured(leaf, "weight", 0.5)
        with torch.no_grad():
            scaled.get_parameter(f"{name}.weight").mul_(2)
            masked.get_parameter(f"{name}.weight").mul_(leaf.weight_mask)
            _same(doubled(*x), scaled(*x), f"the parametrised weight of '{name}' is not used")
            _same(pruned(*x), masked(*x), f"the pruned weight of '{name}' is not used")
        for changed in (doubled, pruned):
            changed(*_requiring(x)).square().sum().backward()
            assert all(p.grad is not None for p in changed.get_submodule(name).parameters()), f"no gradient in '{name}'"


def leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of torch's classes inside a block, by name."""
    for name, part in module.named_modules():
        if name and isinstance(part, LEAVES):
            yield name, part


def _changed(module: nn.Module, change: Callable[[Any], nn.Module], only: str | None = None) -> nn.Module:
    """A copy with other modules in the place of its leaves, or of one."""
    changed = copy.deepcopy(module)
    for name, leaf in list(leaves(changed)):
        if only is None or name == only:
            changed.set_submodule(name, change(leaf))
    return changed.eval()


def _scaled(leaf: Any) -> nn.Module:
    """The leaf that gives twice as much."""
    for parameter in leaf.parameters():
        parameter.mul_(2)
    return leaf  # type: ignore[no-any-return]


def _module(op: Op[*Place], place: tuple[*Place]) -> nn.Module:
    module = example_module(op, *place)
    own = isinstance(module, LEAVES)  # a block that is a leaf is called by who holds it
    return nn.Sequential(module) if own else module


def _requiring(x: tuple[Any, ...]) -> tuple[Any, ...]:
    return tree_map_only(Tensor, lambda t: t.clone().requires_grad_(), x)  # type: ignore[no-any-return]


def _same(actual: Tensor, wanted: Tensor, otherwise: str) -> None:
    error = ((actual - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12)).item()
    assert error < NOISE, f"{otherwise}: off by {error:.1e}"
