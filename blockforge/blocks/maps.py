"""Modules in a row on channels-last maps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blockforge.blocks.leaves import TAKE_NCHW, layout_of
from blockforge.kernels.cpu import activate, overwrites, untouched

_GIVE_NEW = (nn.Linear, nn.LayerNorm, nn.RMSNorm, *TAKE_NCHW)
"""Classes whose result is in memory of its own. An activation's is, or in that of an input that nobody else reads."""


class Maps(nn.Sequential):
    """torch's Sequential on x_BHWC: each module gets the map in the layout of its place. An activation works in its
    input's memory where nobody else reads that, see `activate`."""

    def __init__(self, *modules: Any) -> None:
        super().__init__(*modules)
        self.made = {name: type(module) for name, module in self._modules.items()}
        self.acts = {name for name, made in self.made.items() if overwrites(made)}
        self.layouts = {name: layout_of(module) for name, module in self.named_children()}
        self.give_new = {name for name, made in self.made.items() if issubclass(made, _GIVE_NEW) or overwrites(made)}

    def forward(self, x: Tensor) -> Tensor:
        layout, before = "NHWC", ""
        for name, module in self._modules.items():
            assert module is not None
            made, wanted = self.made.get(name), self.layouts.get(name, "NHWC")
            if wanted != layout:
                x, layout = x.permute(0, 3, 1, 2) if wanted == "NCHW" else x.permute(0, 2, 3, 1), wanted
            x = activate(module, x, self._gives_new(before)) if name in self.acts else module(x)
            if made is not nn.Identity or not untouched(module, nn.Identity):
                before = name
        return x if layout == "NHWC" else x.permute(0, 2, 3, 1)

    def gives_own(self) -> bool:
        """Whether nobody but the caller reads the result."""
        return untouched(self, Maps) and self._gives_new(next(reversed(self._modules)))

    def _gives_new(self, name: str) -> bool:
        """Whether the module of this name gives what nobody else reads."""
        module = self._modules.get(name)
        return name in self.give_new and module is not None and untouched(module, self.made[name])
