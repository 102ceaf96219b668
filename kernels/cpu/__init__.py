"""What runs in another way on a CPU for speed alone, and the fence around it.

Blocks and layers read like torch. Where a CPU has a faster way, they call a function of this file: a detour. What it
computes is said in `torch_impl.py`, by the function of the same name and signature, in torch's own words. Put in the
detour's place, that changes speed, memory and rounding and nothing else; `blockforge eject` does so.

A detour is whatever is imported from `blockforge.kernels.cpu` itself. What is shared with the operators beside this
package (numba's helpers in `jit.py`) or asked for by costs (`memory.py`) is imported from its file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from blockforge.kernels.cpu.activations import activate, overwrites
from blockforge.kernels.cpu.convolutions import add_dwconv, conv2d
from blockforge.kernels.observers import untouched

__all__ = ["activate", "add_dwconv", "conv2d", "overwrites", "untouched"]

_Method = TypeVar("_Method", bound=Callable[..., object])


def faster(method: _Method) -> _Method:
    """Says of a method that it computes what its base class's does, in another way: the plain network has none."""
    return method
