"""Labelled images that are tensors in memory, and what becomes of them at another size and other channels.

Tensors: B images, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.errors import DataError
from blockforge.train.data import Batch, Want, digest_of, epoch_order


class TensorSplit:
    """Images that are tensors in memory.

    Args:
        images_BCHW: uint8 in 0..255, or float32 in 0..1.
        labels_B: int64.
    Raises: DataError if there are not as many labels as images.
    """

    crops = False

    def __init__(self, images_BCHW: Tensor, labels_B: Tensor) -> None:
        if len(images_BCHW) != len(labels_B):
            raise DataError(f"{len(images_BCHW)} images have {len(labels_B)} labels; each has one")
        self.images_BCHW, self.labels_B = images_BCHW, labels_B
        self._prepared: dict[tuple[int, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.labels_B)

    def batches(self, want: Want) -> Iterator[Batch]:
        images = self._at(want.size, want.channels)
        for indices in epoch_order(len(self), want):
            chosen = torch.tensor(indices)
            yield images.index_select(0, chosen), self.labels_B[chosen]  # whole images are copied, not their values

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]]:
        return self._statistics

    @functools.cached_property
    def _statistics(self) -> tuple[list[float], list[float]]:
        x = self.images_BCHW.float() / (255 if self.images_BCHW.dtype == torch.uint8 else 1)
        return x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).clamp_min(1e-3).tolist()

    def labels(self) -> list[int]:
        return self.labels_B.tolist()

    def only(self, rows: Sequence[int]) -> TensorSplit:
        chosen = torch.tensor(rows, dtype=torch.int64)
        return TensorSplit(self.images_BCHW[chosen], self.labels_B[chosen])

    def digest(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        images = self.images_BCHW.contiguous()
        values = images.numpy().data.cast("B")
        return digest_of(f"{images.dtype} {list(images.shape)}", values, self.labels_B.numpy().tobytes())

    def _at(self, size: tuple[int, int], channels: int) -> Tensor:
        """All images at a size and number of channels: made once, kept for the next epoch and the next model."""
        key = (*size, channels)
        if key not in self._prepared:
            self._prepared = {key: to_channels(_resized(self.images_BCHW, size), channels)}
        return self._prepared[key]


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[2:] == size:
        return images
    kept = images.dtype
    parts = [
        F.interpolate(part.float(), size, mode="bilinear", antialias=True, align_corners=False)
        for part in images.split(256)
    ]
    return torch.cat([(p.round() if kept == torch.uint8 else p).to(kept) for p in parts])


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Images_BCHW with as many channels: grey is repeated, colour is weighed to grey (ITU-R 601).

    Raises: DataError for other numbers.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if have == 1:
        return images.expand(-1, channels, -1, -1)
    if have == 3 and channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        return (images.float() * weights).sum(1, keepdim=True).to(images.dtype)
    raise wrong_channels(have, channels)


def wrong_channels(have: int, channels: int) -> DataError:
    """What is raised where images have other channels than the network takes."""
    text = f"the images have {have} channels, the network takes {channels}"
    return DataError(f"{text}\n  hint: --set input.channels={have}")
