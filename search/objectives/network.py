"""What scores share: the network as they look at it, and the images that it sees.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockforge.api import build
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Branch
from blockforge.errors import SpecError
from blockforge.torch_private import BatchNorm

if TYPE_CHECKING:
    from blockforge.train import Data

Batch = tuple[Tensor, Tensor]
"""Images_BCHW, normalised, and labels_B."""


def seen(data: str | None) -> str:
    """What a score's heading says of its images."""
    return f" on {data}" if data is not None else " on noise"


def shrunk(arch: Architecture, size: int) -> Architecture:
    """The same spec for images whose longer side is `size`: no larger than its own, nor so small that the last map
    has less than 2 x 2 positions. As it is, if a block does not take smaller maps."""
    image = arch.plan.input
    reduction = math.ceil(max(image.size) / min(max(map.height, map.width) for map in arch.stage_maps()))
    scale = min(1.0, max(size, 2 * reduction) / max(image.size))
    if scale == 1.0:
        return arch
    try:
        return compile_spec(arch.spec, {"input.size": [max(1, round(side * scale)) for side in image.size]})
    except SpecError:
        return arch


def prepared(
    arch: Architecture, size: int, images: int, seed: int, data: str | None, number: int = 1
) -> tuple[Backbone, list[Batch]]:
    """A freshly initialised network for images of `size`, and `number` batches of them: of the data's training
    images, or of noise with random labels.

    Raises: DataError if the data cannot be read or have too few images.
    """
    arch = shrunk(arch, size)
    image = arch.plan.input
    if data is None:
        model = build(arch, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        shape = (images, image.channels, *image.size)
        noise = [torch.randn(shape, generator=generator) for _ in range(number)]
        classes = max(1, model.num_classes)
        return model, [(x, torch.randint(classes, (images,), generator=generator)) for x in noise]
    opened = open_cached(data)
    model = build(arch, num_classes=len(opened.classes), seed=seed)
    return model, _drawn(opened, (image.size[0], image.size[1]), image.channels, images, seed, number)


def _drawn(data: Data, size: tuple[int, int], channels: int, images: int, seed: int, number: int) -> list[Batch]:
    from blockforge.train import DataError, load_recipe
    from blockforge.train.augment import normalization
    from blockforge.train.data import Want

    normalize = normalization(load_recipe("micro"), data, channels)
    drawn: list[Batch] = []
    for x, labels in data.train.batches(Want(size, channels, images, shuffle=True, seed=seed)):
        drawn.append((normalize(x), labels))
        if len(drawn) == number:
            return drawn
    raise DataError(f"{data.name} has {len(data.train)} images to train on, fewer than {number} batches of {images}")


@functools.cache
def open_cached(data: str) -> Data:
    """Data by name, opened once in a process."""
    from blockforge.train import open_data

    return open_data(data)


@contextlib.contextmanager
def at_initialisation(model: nn.Module) -> Iterator[None]:
    """Look at a network that was not trained; what it holds is as before at the end.

    Drop path and dropout are off. BatchNorm takes the statistics of the batch, since running ones do not exist yet,
    and leaves its buffers alone. LayerScale counts as 1: it often starts at 1e-6, where every branch is nothing and
    only the stem would be scored.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [m for m in modes if isinstance(m, BatchNorm)]
    tracked = [m.track_running_stats for m in norms]
    scales = [m.scale for m in modes if isinstance(m, Branch) and m.scale is not None]
    kept = [scale.detach().clone() for scale in scales]
    model.eval()
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        for scale in scales:
            scale.data.fill_(1.0)
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, tracks in zip(norms, tracked, strict=True):
            norm.track_running_stats = tracks
        for scale, before in zip(scales, kept, strict=True):
            scale.data.copy_(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more threads, and lose much where other processes want the cores;
    and a score must not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
