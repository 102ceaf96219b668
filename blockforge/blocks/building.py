"""The modules of blocks, a plugin's too, of which nothing is known but that they were registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from blockforge.errors import PluginError
from blockforge.plugins import defined_in, plugin_code

if TYPE_CHECKING:
    from blockforge.blocks.base import AnyPlaced


def built(placed: AnyPlaced) -> nn.Module:
    """What a block builds at its place. Raises: PluginError where a plugin's fails, or builds no module."""
    op = placed.op
    module = type(op).__module__
    with plugin_code(f"block '{op.op}'", module):
        made: object = placed.build()
        if not isinstance(made, nn.Module):
            text = f"block '{op.op}' ({defined_in(module)}) builds {type(made).__name__}"
            raise PluginError(f"{text}\n  hint: build() gives a torch.nn.Module")
    return made
