"""Modules in a row on channels-last maps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blockforge.blocks.inplace import activate
from blockforge.blocks.leaves import TAKE_NCHW, layout_of, untouched

_GIVE_NEW = (nn.Linear, nn.LayerNorm, *TAKE_NCHW, nn.GELU, nn.ReLU, nn.SiLU)
"""Classes whose result is in memory of its own, or in that of an input that nobody else reads."""


class Maps(nn.Sequential):
    """torch's Sequential on x_BHWC: each module gets the map in the layout of its place. An activation works in its
    input's memory where nobody else reads that, see `activate`."""

    def __init__(self, *modules: Any) -> None:
        super().__init__(*modules)
        self.made = {name: type(module) for name, module in self._modules.items()}
        self.layouts = {name: layout_of(module) for name, module in self.named_children()}

    def forward(self, x: Tensor) -> Tensor:
        layout, own = "NHWC", False
        for name, module in self._modules.items():
            assert module is not None
            wanted = self.layouts.get(name, "NHWC")
            if wanted != layout:
                x, layout = x.permute((0, 3, 1, 2) if wanted == "NCHW" else (0, 2, 3, 1)), wanted
            x = activate(module, x, own)
            own = self._gives_own(name, module, own)
        return x if layout == "NHWC" else x.permute(0, 2, 3, 1)

    def gives_own(self) -> bool:
        """Whether nobody but the caller reads the result."""
        name, last = next(reversed(self._modules.items()))
        return untouched(self, Maps) and last is not None and self._gives_own(name, last, own=False)

    def _gives_own(self, name: str, module: nn.Module, own: bool) -> bool:
        made = self.made.get(name, nn.Module)
        return untouched(module, made) and (own if made is nn.Identity else issubclass(made, _GIVE_NEW))
