"""Images that come as arrays: what their values mean, and which axis holds the channels.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blockforge.errors import DataError
from blockforge.train.data import Batch, Opened, Problem, Want
from blockforge.train.labels import MOST_CLASSES, wrong_labels
from blockforge.train.pixels import in_unit, with_channels
from blockforge.train.tensor_split import TensorSplit, wrong_channels

FEW = 4
"""As many channels a picture has at most; an axis that is longer is a side, or a spectrum."""


def as_values(array: Any) -> Any:
    """Values of images as uint8 in 0..255 or float32 in 0..1: what their type says they mean.

    uint16 goes from 0 to 65535, booleans are black and white, floats go from 0 to 1. Other whole numbers have no agreed
    range: they are read as uint8 if they are from 0 to something in 2..255. Raises: ValueError for the rest.
    """
    kind = array.dtype
    if kind == np.uint8:
        return array
    if kind == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if kind.kind == "u" and kind.itemsize == 2:  # in either order of bytes
        return array.astype(np.float32) / np.float32(65535)
    if kind.kind == "f":
        return in_unit(array)
    if kind.kind not in "iu":
        raise ValueError(f"{kind} is no type of images")
    low, high = int(array.min()), int(array.max())
    if low < 0 or not 1 < high < 256:
        raise ValueError(f"{kind}, {low} to {high}, has no agreed range")
    return array.astype(np.uint8)


def channel_axis(shape: Sequence[int], channels: int | None = None) -> int | None:
    """Which axis of an image of this shape holds the channels, 0 or 2; None: it cannot be told.

    The one that is no longer than four, if the other is and it is no side of a small square; else the one that has as
    many as the network takes; else the one that can be made so many (grey repeated, colour weighed to grey).
    """
    few = [axis for axis in (0, 2) if shape[axis] <= FEW]
    if len(few) == 1 and shape[few[0]] != shape[1]:
        return few[0]
    if channels is None:
        return None
    for fits in (lambda have: have == channels, lambda have: have == 1 or (have == 3 and channels == 1)):
        axes = [axis for axis in (0, 2) if fits(shape[axis])]
        if axes:
            return axes[0] if len(axes) == 1 else None
    return None


def unclear(shape: Sequence[int], channels: int | None) -> str:
    """What is said where `channel_axis` cannot tell."""
    takes = f", the network takes {channels}" if channels is not None else ""
    return (
        f"images of {' x '.join(map(str, shape))} have {shape[0]} channels or {shape[2]}, by which axis is meant{takes}"
    )


def read_values(images: Any, name: str) -> Any:
    """`as_values` of an array of images. Raises: DataError that names it."""
    shape = f"{list(images.shape)} with {len(images) if images.ndim else 0} labels"
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(f"{name} is {shape}; images are N x H x W, N x H x W x C or N x C x H x W, a label each")
    try:
        return as_values(images)
    except ValueError as e:
        known = f"{images.dtype}, {images.min()} to {images.max()}" if images.dtype.kind in "biuf" else images.dtype
        raise DataError(f"{name} is {known}; use uint8, or floats in 0..1\n  why: {e}") from None


def as_split(values: Any, labels: Any, name: str, layout: str | None = None) -> TensorSplit | ArraySplit:
    """Images as `read_values` gives them, N x H x W, N x H x W x C or N x C x H x W, and labels, a number from 0 each.

    Args:
        layout: `nhwc` or `nchw`; None: what `channel_axis` says, when the network is known if need be.
    """
    if values.ndim == 3:
        values, layout = values[:, None], "nchw"
    labels_B = torch.from_numpy(np.asarray(labels).astype(np.int64))
    axis = {"nchw": 0, "nhwc": 2, None: channel_axis(values.shape[1:])}[layout]
    return ArraySplit(values, labels_B, name) if axis is None else TensorSplit(_channels_first(values, axis), labels_B)


class Named(NamedTuple):
    """An array of images with that of their labels, and what both are called."""

    images: Any
    labels: Any
    name: str
    labels_name: str


def of_arrays(parts: Mapping[str, Named], names: Sequence[str] | None, layout: str | None = None) -> Opened:
    """Data from arrays, by the parts' names. Images without a label are left out, and are among the problems.

    Args:
        names: of the classes; None: they are the labels as text.
        layout: see `as_split`.
    Raises: DataError if they are no images, or no labels, or not as many.
    """
    problems: list[Problem] = []
    known = len(names) if names is not None else None
    read = {part: _labelled(a.images, a.labels, (a.name, a.labels_name), known, problems) for part, a in parts.items()}
    classes = names or [str(i) for i in range(max(int(labels.max()) for _, labels in read.values()) + 1)]
    splits = {part: as_split(*both, parts[part].name, layout) for part, both in read.items()}
    return Opened.of(classes, splits, names is not None, problems)


def _labelled(
    images: Any, labels: Any, where: tuple[str, str], classes: int | None, problems: list[Problem]
) -> tuple[Any, Any]:
    """`read_values` of the images that have a label, and their labels. What has none is added to the problems.

    Args:
        where: the names of both arrays.
        classes: how many there are; None: as many as the labels say.

    Raises: DataError if they are no labels, or not as many as the images.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        what = f"{where[1]} is {labels.dtype}{list(labels.shape)}; labels are one row of whole numbers from 0"
        hint = "\n  hint: names, labels = np.unique(labels, return_inverse=True); save the names as classes"
        raise DataError(what + hint * (labels.dtype.kind in "US"))
    if images.ndim == 0 or len(images) != len(labels):
        shape = [len(images), 1, *images.shape[1:]] if images.ndim == 3 else list(images.shape)
        raise DataError(f"{where[0]} is {shape} with {len(labels)} labels; each image has one")
    values = read_values(images, where[0])
    wrong = wrong_labels(labels, classes if classes is not None else MOST_CLASSES)
    if not wrong:
        return values, labels
    if len(wrong) == len(labels):
        raise DataError(f"{where[1]}: none of the {len(labels)} images has a label: {wrong[0][1]} in row {wrong[0][0]}")
    problems += [Problem(f"{where[1]}[{row}]", reason) for row, reason in wrong]
    kept = np.ones(len(labels), bool)
    kept[[row for row, _ in wrong]] = False
    return values[kept], labels[kept]


def as_bands(array: Any, channels: int) -> list[Image.Image]:
    """One image's values, H x W, H x W x C or C x H x W, as Pillow images to resize: grey or colours as one, else one
    of each channel (Pillow takes a fourth for alpha, by which it weighs the others).

    Raises: DataError if its channels are unclear, or are not those that the network takes.
    """
    if array.ndim == 2:
        array = array[None]
    axis = channel_axis(array.shape, channels) if array.ndim == 3 else None
    if axis is None:
        why = unclear(array.shape, channels) if array.ndim == 3 else f"an array of {list(array.shape)} is no image"
        raise DataError(why)
    bytes_HWC = np.moveaxis(array, axis, 2)
    if bytes_HWC.dtype != np.uint8:
        bytes_HWC = (bytes_HWC * 255).round().astype(np.uint8)
    have = bytes_HWC.shape[2]
    if have in (1, 3) and channels in (1, 3, 4):
        whole = np.ascontiguousarray(bytes_HWC[..., 0] if have == 1 else bytes_HWC)
        return [with_channels(Image.fromarray(whole), channels)]
    if have not in (1, channels):
        raise wrong_channels(have, channels)
    return [Image.fromarray(np.ascontiguousarray(bytes_HWC[..., i])) for i in range(have)] * (channels // have)


def _channels_first(values: Any, axis: int) -> Tensor:
    moved = values.transpose(0, 3, 1, 2) if axis == 2 else values
    return torch.from_numpy(np.ascontiguousarray(moved))


class ArraySplit:
    """Images whose channels stand on an axis that only the network's number of channels tells.

    Args:
        values: N x ? x ? x ?, as `as_values` gives them.
        labels_B: int64.
        name: of the array, for errors.
    """

    crops = False

    def __init__(self, values: Any, labels_B: Tensor, name: str) -> None:
        self.values, self.labels_B, self.name = values, labels_B, name
        self._settled: dict[int, TensorSplit] = {}

    def __len__(self) -> int:
        return len(self.labels_B)

    def settled(self, channels: int | None) -> TensorSplit:
        """The images for a network of so many channels. Raises: DataError if that does not tell."""
        axis = channel_axis(self.values.shape[1:], channels)
        if axis is None:
            hint = "npz:FILE?layout=nhwc where the channels come last, ?layout=nchw where they come first"
            raise DataError(f"{self.name}: {unclear(self.values.shape[1:], channels)}\n  hint: {hint}")
        if axis not in self._settled:
            self._settled = {axis: TensorSplit(_channels_first(self.values, axis), self.labels_B)}
        return self._settled[axis]

    def batches(self, want: Want) -> Iterator[Batch]:
        return self.settled(want.channels).batches(want)

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]]:
        return self.settled(channels).statistics()

    def labels(self) -> list[int]:
        return self.labels_B.tolist()

    def only(self, rows: Sequence[int]) -> ArraySplit:
        return ArraySplit(self.values[rows], self.labels_B[torch.tensor(rows, dtype=torch.int64)], self.name)

    def digest(self) -> str:
        return TensorSplit(torch.from_numpy(np.ascontiguousarray(self.values)), self.labels_B).digest()
