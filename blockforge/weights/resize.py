"""Tensors that were learnt at another size of the image or the window, brought to a network's own.

A module whose parameters are a grid of positions says how they are resized: it has a method `resized(name, value)` that
gives the value of its parameter `name` from one of another size, or None where it cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Resize = Callable[[Tensor], Tensor | None]


def resizers(model: nn.Module) -> dict[str, Resize]:
    """What brings a tensor of another size to a parameter's, by the parameter's path."""
    by_key: dict[str, Resize] = {}
    for path, module in model.named_modules():
        resized: Any = getattr(module, "resized", None)
        if callable(resized):
            for name, _ in module.named_parameters(recurse=False):
                by_key[f"{path}.{name}" if path else name] = _of(resized, name)
    return by_key


def _of(resized: Any, name: str) -> Resize:
    return lambda value: resized(name, value)


def resized_to(own: Tensor, value: Tensor, key: str, resize: Mapping[str, Resize]) -> Tensor | None:
    """A value in a parameter's shape, where its block knows how; None: it has that shape, or it cannot be done."""
    if key not in resize or _plain(own.shape) == _plain(value.shape):
        return None
    resized = resize[key](value)
    return resized if resized is not None and resized.shape == own.shape else None


def resized_in_words(keys: list[str]) -> str:
    """A line for the user."""
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"resized from another image or window size: {keys[0]}{more}"


def _plain(shape: Any) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)
