"""Data that can be trained on: opened by name, and refused or mended where something is wrong in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from blockforge.notes import note
from blockforge.train.check import without_broken
from blockforge.train.data import Data, Problem
from blockforge.train.labels import wrong_labels
from blockforge.train.opening import named_data, refuse


def open_data(data: Data | str, *, skip_broken: bool = False, progress: bool = False, least: int = 2) -> Data:
    """Open data by name: `digits`, `fashion`, `imagefolder:PATH`, `npz:FILE`, ...; options follow a `?`.

    Args:
        skip_broken: read every image once, and leave out what is broken or has no label; also as `?skip_broken=true`.
        progress: show that on standard error.
        least: classes that there must be; a network that knows more can be measured on one.
    Raises: DataError if there is no such source, nothing that can be used in it, or something wrong in it.
    """
    opened, skips = (data, False) if isinstance(data, Data) else named_data(data, least)
    if isinstance(data, str):
        for line in opened.notes:
            note(f"{opened.name}: {line}")
    if skip_broken or skips:
        return without_broken(opened, progress=progress)
    if isinstance(data, Data):
        opened = dataclasses.replace(opened, problems=tuple(_in_memory(opened)))
    refuse(opened)
    return opened if isinstance(data, str) else data


def _in_memory(data: Data) -> Iterator[Problem]:
    """The labels of images in memory, which somebody put together, that are no classes."""
    for name, split in data.parts.items():
        labels = getattr(split, "labels_B", None)
        if isinstance(labels, Tensor):
            wrong = wrong_labels(labels.numpy(), len(data.classes))
            yield from (Problem(f"{name}, image {row}", reason) for row, reason in wrong)
