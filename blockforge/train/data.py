"""Labelled images, wherever they come from.

Tensors: B images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from blockforge.errors import DataError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Batch = tuple[Tensor, Tensor]
"""Images_BCHW, uint8 in 0..255 or float in 0..1, and labels_B."""


@dataclass(frozen=True)
class Want:
    """The batches of one epoch, as one process wants them.

    Attributes:
        size, channels: of the images; sources resize, and repeat grey or make it.
        batch_size: images of a batch on this process.
        shuffle: random order, from `seed` and `epoch` alone, without the last part of a batch; else every image.
        start: batches that are left out at the beginning: where a run goes on.
        rank, world: this process and how many there are.
        crop: scale and ratio of random resized crops, for sources that crop while they decode.
        crop_pct: share of the side that a centre crop keeps, where there is no random one.
        workers: processes that decode.
    """

    size: tuple[int, int]
    channels: int
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    epoch: int = 0
    start: int = 0
    rank: int = 0
    world: int = 1
    crop: tuple[Sequence[float], Sequence[float]] | None = None
    crop_pct: float = 1.0
    workers: int = 0


class Split(Protocol):
    """Images for training, or for evaluation."""

    crops: bool
    """Whether random resized crops are made while decoding."""

    def __len__(self) -> int:
        """Number of images."""

    def batches(self, want: Want) -> Iterator[Batch]:
        """The batches of an epoch. Raises: DataError for images that cannot be read."""

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation a channel of images in 0..1; None: too many images to tell.

        Args:
            channels: what the network takes; arrays whose layout is unclear need it.
        """

    def digest(self) -> str:
        """What tells these images from others as far as is known without decoding them, wherever they lie: of files
        their names below the data's folder, of arrays their values, always the labels. Equal: the same images in
        the same order."""


@runtime_checkable
class Cuttable(Split, Protocol):
    """Images of which a part can be set apart."""

    def labels(self) -> Sequence[int]:
        """The label of each image."""

    def only(self, rows: Sequence[int]) -> Split:
        """The images of these numbers alone, in this order."""


class Problem(NamedTuple):
    """Something that is wrong with data: where, and what."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Opened:
    """What a source gives; parts that it lacks are cut from `train`, see `cutting`.

    Attributes:
        train, val, test: images to train on, to choose by, and for the last word.
        named: whether the classes have names of their own; else they are the labels as text.
        problems: what is wrong and was left out.
        notes: what was left out on purpose, in words.
    """

    classes: Sequence[str]
    train: Split
    val: Split | None = None
    named: bool = True
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    test: Split | None = None

    @classmethod
    def of(
        cls, classes: Sequence[str], parts: Mapping[str, Split], named: bool = True, problems: Sequence[Problem] = ()
    ) -> Opened:
        """From the parts by name, `train` among them."""
        return cls(classes, parts["train"], parts.get("val"), named, problems, test=parts.get("test"))


@dataclass(frozen=True)
class Data:
    """A data set: `name` as it was asked for, classes by label, and its parts.

    Attributes:
        train: images to train on.
        val: those that choose: the best epoch, the better of two networks.
        test: those that nothing is chosen by; None: there are none.
        named, problems, notes: see `Opened`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    named: bool = True
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    test: Split | None = None

    @property
    def parts(self) -> dict[str, Split]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in parts.items() if split is not None}

    @property
    def last_word(self) -> str:
        """The part that tells what a choice is worth: `test`, or where there is none `val`."""
        return "test" if self.test is not None else "val"

    def part(self, name: str | None) -> Split:
        """A part by name; None: that of the last word. Raises: DataError."""
        name = self.last_word if name is None else name
        if name not in self.parts:
            raise DataError(f"{self.name} has no part '{name}'\n  hint: {', '.join(self.parts)}")
        return self.parts[name]

    def identity(self) -> dict[str, Any]:
        """What a run's result depends on, as plain data: a folder that was moved is the same data, one with an image
        more, or less, or under another label, is not. Nothing in a run follows from its test images."""
        known: dict[str, Any] = {"classes": list(self.classes)}
        for name, split in (("train", self.train), ("val", self.val)):
            known |= {f"{name}_images": len(split), f"{name}_digest": split.digest()}
        return known


def epoch_order(count: int, want: Want) -> list[list[int]]:
    """Indices of each batch that this process still has to see in the epoch."""
    if not want.shuffle:
        own = range(want.rank, count, want.world)
        return [list(own[i : i + want.batch_size]) for i in range(0, len(own), want.batch_size)][want.start :]
    generator = torch.Generator().manual_seed(mixed(want.seed, want.epoch))
    order = torch.randperm(count, generator=generator).tolist()
    whole = want.batch_size * want.world
    starts = range(want.rank * want.batch_size, count // whole * whole, whole)
    return [order[i : i + want.batch_size] for i in starts][want.start :]


def digest_of(*parts: bytes | memoryview | str) -> str:
    """A short digest of parts, each with its length: `ab`, `c` is not `a`, `bc`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def mixed(*numbers: int) -> int:
    """A seed from several numbers, well spread: SplitMix64 over them."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1
