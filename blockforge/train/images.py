"""Images that are decoded when they are needed, in processes of their own if wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from blockforge.errors import DataError
from blockforge.train.arrays import as_bands
from blockforge.train.data import Batch, Want, digest_of, epoch_order, mixed
from blockforge.train.pixels import with_channels

Sample = tuple[Tensor, int]
Decoded = Sample | DataError
"""An error is handed over as a value: a worker's exception would reach the user with its traceback as text."""


class Reader(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def __call__(self, index: int) -> tuple[Image.Image | Any, int]:
        """An image as `decode` takes it, and its label. Raises: DataError if it cannot be read."""

    def digest(self) -> str:
        """As `Split.digest`."""

    def labels(self) -> Sequence[int]:
        """The label of each image."""

    def name(self, index: int) -> str:
        """Where an image comes from, for a person."""

    def only(self, rows: Sequence[int]) -> Reader:
        """The images of these numbers alone, in this order."""


class ImageSplit:
    """Images that a `Reader` gives by number."""

    crops = True

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def batches(self, want: Want) -> Iterator[Batch]:
        decoded = _Decoded(self.reader, want)
        order = epoch_order(len(self), want)
        return _checked(DataLoader(decoded, batch_sampler=order, **loading(want)))

    def statistics(self, channels: int | None = None) -> None:
        return None

    def labels(self) -> Sequence[int]:
        return self.reader.labels()

    def only(self, rows: Sequence[int]) -> ImageSplit:
        return ImageSplit(self.reader.only(rows))

    def digest(self) -> str:
        return self.reader.digest()


class StreamSplit:
    """Images that come in a row.

    Args:
        stream: the samples of this process in an epoch's order, from a given one on.
        count: how many there are.
    """

    crops = True

    def __init__(self, stream: Callable[[Want, int], Iterable[tuple[Image.Image | Any, int]]], count: int) -> None:
        self.stream, self.count = stream, count

    def __len__(self) -> int:
        return self.count

    def batches(self, want: Want) -> Iterator[Batch]:
        share = self.count // want.world if want.shuffle else self.count
        batches = share // want.batch_size if want.shuffle else -(-share // want.batch_size)
        loader = DataLoader(_Streamed(self.stream, want), want.batch_size, drop_last=want.shuffle, collate_fn=collated)
        for number, batch in enumerate(_checked(loader), want.start):
            if number >= batches:
                return
            yield batch

    def statistics(self, channels: int | None = None) -> None:
        return None

    def digest(self) -> str:
        return digest_of(f"a stream of {self.count}")


class _Decoded(Dataset[Decoded]):
    def __init__(self, reader: Reader, want: Want) -> None:
        self.reader, self.want = reader, want

    def __getitem__(self, index: int) -> Decoded:
        try:
            image, label = self.reader(index)
        except DataError as e:
            return e
        try:
            return decode(image, self.want, index), label
        except DataError as e:
            return DataError(f"{self.reader.name(index)}: {e}")


class _Streamed(IterableDataset[Decoded]):
    def __init__(self, stream: Callable[[Want, int], Iterable[tuple[Image.Image | Any, int]]], want: Want) -> None:
        self.stream, self.want = stream, want

    def __iter__(self) -> Iterator[Decoded]:
        first = self.want.start * self.want.batch_size
        try:
            for number, (image, label) in enumerate(self.stream(self.want, first), first):
                yield decode(image, self.want, number * self.want.world + self.want.rank), label
        except DataError as e:
            yield e


def decode(image: Image.Image | Any, want: Want, number: int) -> Tensor:
    """An image as uint8_CHW of the wanted size: a random resized crop, or the centre.

    The crop follows from the seed, the epoch and the image's number, whatever process makes it and whenever.

    Args:
        image: what `pixels.as_meant` gives, or an array that `arrays.as_values` gives.
    Raises: DataError if its channels do not fit.
    """
    if isinstance(image, Image.Image):
        bands = [with_channels(image, want.channels)]
    else:
        bands = as_bands(image, want.channels)
    height, width = want.size
    box = _random_box(bands[0], want, number) if want.crop else _centre_box(bands[0], want)
    resized = [np.array(band.resize((width, height), Image.Resampling.BICUBIC, box=box)) for band in bands]
    array = resized[0] if resized[0].ndim == 3 else np.stack(resized, -1)
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _centre_box(image: Image.Image, want: Want) -> tuple[float, float, float, float]:
    """The largest part of the wanted shape, less the margin that `crop_pct` leaves."""
    height, width = want.size
    scale = min(image.width / width, image.height / height) * want.crop_pct
    w, h = width * scale, height * scale
    left, top = (image.width - w) / 2, (image.height - h) / 2
    return left, top, left + w, top + h


def _random_box(image: Image.Image, want: Want, number: int) -> tuple[int, int, int, int]:
    """A crop as kornia draws it. Pillow cuts and resizes in one step, from bytes and without aliasing."""
    assert want.crop is not None
    scale, ratio = want.crop
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed(want.seed, want.epoch, number))
        drawn = _crops(want.size, tuple(scale), tuple(ratio))((1, want.channels, image.height, image.width))
    corners = drawn["src"][0]
    left, top = corners[0].int().tolist()
    right, bottom = corners[2].int().tolist()
    return left, top, min(right + 1, image.width), min(bottom + 1, image.height)


@functools.cache
def _crops(size: tuple[int, int], scale: Any, ratio: Any) -> Any:
    from kornia.augmentation.random_generator import ResizedCropGenerator

    return ResizedCropGenerator(size, scale, ratio)


def loading(want: Want) -> dict[str, Any]:
    """Options of a DataLoader."""
    options: dict[str, Any] = {"collate_fn": collated, "num_workers": want.workers}
    if torch.cuda.is_available():
        options["pin_memory"] = True
    return options


def collated(samples: list[Decoded]) -> Batch | DataError:
    """A batch, or the first error in it."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    return torch.stack([image for image, _ in good]), torch.tensor([label for _, label in good])


def _checked(loader: Iterable[Batch | DataError]) -> Iterator[Batch]:
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as e:
            if "DataLoader worker" not in str(e):
                raise
            hint = "fewer of them (workers=0 in the recipe: none), or more shared memory (docker run --shm-size)"
            raise DataError(
                f"a process that reads images died, most often for want of memory\n  hint: {hint}"
            ) from None
        if isinstance(batch, DataError):
            raise batch
        yield batch
