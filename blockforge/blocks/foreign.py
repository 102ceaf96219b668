"""Modules of blocks, a plugin's included, of which nothing is known but that it was registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from blockforge.errors import PluginError
from blockforge.plugins import defined_in, plugin_code

if TYPE_CHECKING:
    from blockforge.blocks.base import AnyOp


def built(op: AnyOp, place: tuple[Any, ...]) -> nn.Module:
    """What a block builds at a place. Raises: PluginError where a plugin's fails, or builds no module."""
    module = type(op).__module__
    with plugin_code(f"block '{op.op}'", module):
        made: object = op.build(*place)
        if not isinstance(made, nn.Module):
            text = f"block '{op.op}' ({defined_in(module)}) builds {type(made).__name__}"
            raise PluginError(f"{text}\n  hint: build() gives a torch.nn.Module")
    return made
