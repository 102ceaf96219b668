"""Everything of a data set read once: what is wrong in it, and the same data without that."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from blockforge.console.progress import counting
from blockforge.errors import DataError
from blockforge.notes import warn
from blockforge.train.arrays import ArraySplit
from blockforge.train.data import Data, Problem, Split, Want, digest_of
from blockforge.train.images import ImageSplit, Reader, StreamSplit
from blockforge.train.opening import FIRST, look
from blockforge.train.tensor_split import TensorSplit

TINY, HUGE = 8, 50_000_000
"""A side of fewer pixels, and an image of more, are told."""
_AT_ONCE = 16
"""Images that a worker reads between two reports."""
Advance = Callable[[int], None]


class Seen(NamedTuple):
    """An image that was read, or not.

    Attributes:
        where: it comes from.
        reason: why it cannot be read; None: it was.
        size: width and height; None where all images have the same.
        digest: of its values; None: it is of one colour, as many may be.
    """

    where: str
    reason: str | None = None
    label: int = -1
    size: tuple[int, int] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        images: how many there are in each part.
        problems: what is wrong.
        notes: what is worth knowing, and not wrong.
    """

    name: str
    classes: tuple[str, ...]
    images: dict[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "images": self.images,
            "problems": [problem._asdict() for problem in self.problems],
            "notes": list(self.notes),
        }


def check_data(data: Data | str, *, workers: int | None = None, progress: bool = False) -> DataReport:
    """Read every image of a data set once, and list what is wrong.

    That is: images that cannot be read, labels that are no classes, classes without images to train on, images with a
    side of less than 8 pixels or of more than 50 million, and the same image under two labels or in two parts.

    Args:
        workers: processes that read; None: as many as there are cores, up to 8.
        progress: show it on standard error.
    Raises: DataError if there is no such data set, or nothing that can be used in it.
    """
    opened = look(data) if isinstance(data, str) else data
    problems, notes = list(opened.problems), list(opened.notes)
    first: dict[str, tuple[str, int, str]] = {}
    counts = {name: [0] * len(opened.classes) for name in opened.parts}
    plain = 0
    with counting(f"check {opened.name}", sum(map(len, opened.parts.values())), progress) as advance:
        for name, split in opened.parts.items():
            for seen in _read(split, workers, advance):
                if seen.reason is not None:
                    problems.append(Problem(seen.where, seen.reason))
                    continue
                counts[name][seen.label] += 1
                plain += seen.digest is None
                problems += _sized(seen)
                problems += _repeated(seen, name, first, opened.classes)
    for label, count in enumerate(counts["train"]):
        if not count:
            problems.append(Problem(f"class '{opened.classes[label]}'", "no image to train on"))
    for name, what in (("val", "choose by"), ("test", "test on")):
        missing = [opened.classes[label] for label, count in enumerate(counts.get(name, ())) if not count]
        if missing:
            notes.append(f"{len(missing)} classes have no image to {what}: {', '.join(missing[:FIRST])}")
    if plain:
        notes.append(f"{plain} images are of one colour")
    images = {name: len(split) for name, split in opened.parts.items()}
    return DataReport(opened.name, opened.classes, images, tuple(problems), tuple(notes))


def without_broken(data: Data, *, workers: int | None = None, progress: bool = False) -> Data:
    """The same data without images that cannot be read; each is read once to know.

    Raises: DataError for a stream, and if nothing is left of a class.
    """
    problems = list(data.problems)
    parts = dict(data.parts)
    with counting(f"read {data.name}", sum(map(len, parts.values())), progress) as advance:
        for name, split in data.parts.items():
            if isinstance(split, StreamSplit):
                raise DataError(
                    f"{data.name} is a stream: what is broken in it is not known before\n  hint: no streaming"
                )
            if not isinstance(split, ImageSplit):
                continue
            reasons = {row: seen for row, seen in enumerate(_read(split, workers, advance)) if seen.reason is not None}
            broken = [Problem(seen.where, seen.reason or "") for seen in reasons.values()]
            problems += broken
            kept = [row for row in range(len(split)) if row not in reasons]
            if not kept:
                raise DataError(f"{data.name}: no image of a split can be read; the first: {broken[0]}")
            parts[name] = split.only(kept) if reasons else split
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:FIRST]) + "\n  ..." * (len(problems) > FIRST)
        warn(f"{data.name}: {len(problems)} broken images or labels are left out{listed}")
    return dataclasses.replace(
        data, train=parts["train"], val=parts["val"], test=parts.get("test"), problems=tuple(problems)
    )


def _read(split: Split, workers: int | None, advance: Advance) -> Iterator[Seen]:
    """Every image of a split, in its order."""
    if isinstance(split, TensorSplit | ArraySplit):
        images = split.images_BCHW.numpy() if isinstance(split, TensorSplit) else split.values
        for row, (image, label) in enumerate(zip(images, split.labels_B.tolist(), strict=True)):
            yield Seen(f"row {row}", None, label, None, _digest(image))
            advance(1)
    elif isinstance(split, StreamSplit):
        yield from _streamed(split, advance)
    elif isinstance(split, ImageSplit):
        processes = workers if workers is not None else min(8, os.cpu_count() or 1)
        loader = DataLoader(_Reads(split.reader), _AT_ONCE, num_workers=processes, collate_fn=list)
        try:
            for batch in loader:
                yield from batch
                advance(len(batch))
        except RuntimeError as e:
            raise DataError(f"a process that reads images ended: {str(e).partition(chr(10))[0]}") from None
    else:
        raise DataError(f"images of a {type(split).__name__} cannot be read one by one")


class _Reads(Dataset[Seen]):
    """Images, read and looked at."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Seen:
        where = self.reader.name(index)
        try:
            image, label = self.reader(index)
        except DataError as e:
            return Seen(where, str(e).partition("\n")[0].removeprefix("cannot read ").removeprefix(where).lstrip(": "))
        return _seen(where, image, label)


def _streamed(split: StreamSplit, advance: Advance) -> Iterator[Seen]:
    row = 0
    try:
        for row, (image, label) in enumerate(split.stream(Want((1, 1), 1, 1), 0)):
            yield _seen(f"row {row}", image, label)
            advance(1)
    except DataError as e:
        yield Seen(f"behind row {row}", str(e).partition("\n")[0])


def _seen(where: str, image: Any, label: int) -> Seen:
    array = np.asarray(image)
    size = image.size if isinstance(image, Image.Image) else None
    return Seen(where, None, label, size, _digest(array))


def _digest(image: Any) -> str | None:
    """Of an image's values; None: it is of one colour."""
    flat = image.reshape(-1, image.shape[-1]) if image.ndim == 3 and image.shape[-1] <= 4 else image.reshape(-1)
    if (flat[:64] == flat[0]).all() and (flat == flat[0]).all():
        return None
    return digest_of(f"{list(image.shape)}", np.ascontiguousarray(image).data.cast("B"))


def _sized(seen: Seen) -> Iterator[Problem]:
    """An image that is too small or too large to be meant."""
    if seen.size is not None and min(seen.size) < TINY:
        yield Problem(seen.where, f"the image is tiny: {seen.size[0]} x {seen.size[1]}")
    elif seen.size is not None and seen.size[0] * seen.size[1] > HUGE:
        yield Problem(seen.where, f"the image is huge: {seen.size[0]} x {seen.size[1]}")


def _repeated(
    seen: Seen, split: str, first: dict[str, tuple[str, int, str]], classes: tuple[str, ...]
) -> Iterator[Problem]:
    """An image that was seen before: under another label, or in another part."""
    if seen.digest is None:
        return
    where, label, before = first.setdefault(seen.digest, (split, seen.label, seen.where))
    if label != seen.label:
        named = f"'{classes[label]}' there, '{classes[seen.label]}' here"
        yield Problem(seen.where, f"the same image as {before} ({where}) under another label: {named}")
    elif where != split:
        use = {"train": "trained on", "val": "chosen by", "test": "tested on"}[where]
        yield Problem(seen.where, f"the same image as {before}, which is {use}")
