"""What networks are shown: noise, image files, or a data set's evaluation images.

Tensors: B images, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError
from blockforge.torch_private import BatchNorm

if TYPE_CHECKING:
    from blockforge.train.data import Want

NOISE = "noise"


@dataclass(frozen=True)
class Images:
    """Images in batches.

    Attributes:
        name: where they come from.
        batches: x_BCHW as a network sees them.
        pictures: the same in 0..1, as a person sees them.
    """

    name: str
    batches: list[Tensor]
    pictures: list[Tensor]

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)


def open_images(
    source: str | None,
    model: Backbone,
    *,
    count: int,
    batch_size: int,
    seed: int = 0,
    weights: str | os.PathLike[str] | None = None,
) -> Images:
    """Images of the size that a network takes, on its device.

    Args:
        source: None or `noise`: standard normal noise; an image file or a folder of them; else a data set as
            `blockforge train` names it, whose evaluation images are taken.
        count: the most that are taken.
        weights: of the network: a training run that lies beside them says how images are normalised. Else they
            get the mean and deviation of a data set in memory, or ImageNet's.
    Raises: AnalysisError or DataError for images that are not there or cannot be read.
    """
    size, channels = model.arch.plan.input.size, model.arch.plan.input.channels
    device = next(model.parameters()).device
    if source is None or source == NOISE:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, channels, *size, generator=generator)
        batches = [b.to(device) for b in noise.split(batch_size)]
        return Images(NOISE, batches, [(b / 6 + 0.5).clamp(0, 1) for b in batches])
    return _read(source, (size[0], size[1]), channels, count, batch_size, weights, device)


def _read(
    source: str,
    size: tuple[int, int],
    channels: int,
    count: int,
    batch_size: int,
    weights: str | os.PathLike[str] | None,
    device: torch.device,
) -> Images:
    from blockforge.train.augment import Normalize, unit
    from blockforge.train.data import IMAGENET_MEAN, IMAGENET_STD, Want
    from blockforge.train.open_data import open_data

    want = Want(size, channels, min(batch_size, count))
    statistics = None
    if Path(source).exists():
        batches: Iterator[Tensor] = _files(Path(source), want, count)
    else:
        data = open_data(source)
        statistics = data.train.statistics(channels)
        batches = (images for images, _ in data.val.batches(want))
    mean, std = _of_run(weights) or statistics or (list(IMAGENET_MEAN), list(IMAGENET_STD))
    normalize = Normalize(_spread(mean, channels), _spread(std, channels))
    pictures = [unit(batch).to(device) for batch in _first(batches, count)]
    return Images(source, [normalize.standardized(p) for p in pictures], pictures)


def _first(batches: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """Batches until there are `count` images."""
    for batch in batches:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return


def _files(path: Path, want: Want, count: int) -> Iterator[Tensor]:
    """An image file, or the first ones of a folder by name, in batches of uint8_BCHW."""
    from blockforge.train.images import decode
    from blockforge.train.pixels import read_image
    from blockforge.train.scan import SUFFIXES, Scan

    files = [path]
    if path.is_dir():
        scan = Scan.below(path)
        files = sorted(scan.images([path])[0])[:count]
        if scan.problems:
            raise AnalysisError(str(scan.problems[0]))
        if not files:
            raise AnalysisError(f"{path} holds no images\n  hint: files that end in {', '.join(SUFFIXES[:5])}, ...")
    for start in range(0, len(files), want.batch_size):
        chosen = files[start : start + want.batch_size]
        yield torch.stack([decode(read_image(file), want, 0) for file in chosen])


def _of_run(weights: str | os.PathLike[str] | None) -> tuple[list[float], list[float]] | None:
    """Mean and deviation that the training run beside these weights used."""
    if weights is None:
        return None
    from blockforge.train.classes import run_beside

    run = run_beside(weights)
    return (run["mean"], run["std"]) if {"mean", "std"} <= run.keys() else None


def _spread(values: list[float], channels: int) -> list[float]:
    """Values of as many channels as the network takes."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


def estimate_statistics(model: nn.Module, batches: list[Tensor]) -> None:
    """Give the BatchNorms of a network that was never trained the statistics of these images.

    Without this they would pass maps on as they are: what a new network is in training, where each batch has its
    own statistics, could not be seen. A single image has none: then nothing changes.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms or len(batches[0]) < 2:
        return
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    try:
        with torch.no_grad():
            for batch in batches:
                if len(batch) > 1:
                    model(batch)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
