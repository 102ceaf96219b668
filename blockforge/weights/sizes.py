"""Whether weights do not fit a network by the size of its image alone."""

from __future__ import annotations

import torch

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import SpecError
from blockforge.weights.mismatch import MismatchError

_USUAL = (224, 256, 384, 192, 288, 320, 448, 512, 160, 128, 96, 64, 48, 32, 28)
"""Sides of images that weights are likely to be for."""

Shapes = dict[str, tuple[int, ...]]


def hint_of_size(arch: Architecture, mismatch: MismatchError) -> str | None:
    """What to do about weights whose only other shapes are of tensors that depend on the image's size; None: that is
    not what is wrong."""
    if not mismatch.shapes:
        return None
    height, width = arch.plan.input.size
    own, larger = _shapes(arch, (height, width)), _shapes(arch, (2 * height, 2 * width))
    if not larger or any(own[s.key] == larger.get(s.key) for s in mismatch.shapes):
        return None
    size = next((n for n in _USUAL if _fits(_shapes(arch, (n, n)), mismatch)), None)
    theirs = f"input.size={size}" if size is not None else "input.size to theirs"
    return (
        f"they are of this network for images of another size than {height}x{width}, and its blocks are built for one "
        f"size: set {theirs}"
    )


def _fits(shapes: Shapes, mismatch: MismatchError) -> bool:
    return bool(shapes) and all(_plain(shapes.get(s.key, ())) == _plain(s.held) for s in mismatch.shapes)


def _shapes(arch: Architecture, size: tuple[int, int]) -> Shapes:
    """The shapes of the network's tensors at a size; empty where it has none."""
    try:
        with torch.device("meta"):
            model = Backbone.from_architecture(compile_spec(arch.spec, {"input.size": list(size)}).in_form(arch.form))
    except SpecError:
        return {}
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)
