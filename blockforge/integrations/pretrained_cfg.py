"""What timm wants to know of a network before it is built; other tools read it too. Needs no timm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.sites import BranchSite, HeadSite
from blockforge.errors import SpecError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, per channel of an image in 0..1: what every checkpoint that the zoo can load was trained with."""


def pretrained_cfg(arch: Architecture) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a network, without weights."""
    size, last = arch.plan.input, arch.stage_shapes()[-1]
    return {
        "input_size": (size.channels, *size.size),
        "fixed_input_size": not takes_other_sizes(arch),
        "pool_size": (last.height, last.width),
        "num_classes": arch.plan.num_classes,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
        "first_conv": first_conv(arch),
        "classifier": _one(classifiers(arch)),
    }


def classifiers(arch: Architecture) -> tuple[str, ...]:
    """The modules that give the classes, by path."""
    paths: list[str] = []
    for node in arch.nodes.values():
        if node.site.output is not None and node.program is not None:
            paths += [f"{node.name}.{step.path}" for step in node.program.own_modules() if step.classifies]
        elif isinstance(node.site, HeadSite):
            paths.append(f"{node.name}.fc")
    return tuple(paths)


def _one(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return names[0] if len(names) == 1 else names or None


def takes_other_sizes(arch: Architecture) -> bool:
    """Whether the same weights serve images of another size: whether twice the size compiles to as many parameters."""
    try:
        other = compile_spec(arch.spec, {"input.size": [2 * side for side in arch.plan.input.size]})
    except SpecError:
        return False
    return other.params == arch.params


def first_conv(arch: Architecture) -> str | tuple[str, ...] | None:
    """The convolution that reads the image, or those that do, be it resized before; None: none does."""
    channels, images, names = arch.plan.input.channels, set[str](), list[str]()
    for node in arch.nodes.values():
        if not node.inputs or (images.issuperset(node.inputs) and not node.params):
            images.add(node.name)
        elif images.intersection(node.inputs) and (placed := node.shapes.placed) is not None:
            prefix = f"{node.name}.op" if isinstance(node.site, BranchSite) else node.name
            with torch.device("meta"):
                module = placed.build()
            convs = (n for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == channels)
            names += [f"{prefix}.{name}" if name else prefix for name in convs]
    return _one(tuple(names))
