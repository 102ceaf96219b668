"""Networks with the images that each of them is shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from blockforge.analyze.inputs import NOISE, Images, estimate_statistics, open_images
from blockforge.analyze.subjects import Subject, subjects
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError


@dataclass(frozen=True)
class Case:
    """A network, ready to be looked into, and its images."""

    subject: Subject
    images: Images

    @property
    def label(self) -> str:
        return self.subject.label

    @property
    def model(self) -> Backbone:
        return self.subject.model

    @property
    def batches(self) -> list[Tensor]:
        return self.images.batches


def cases(
    names: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    variants: Sequence[str] = (),
    weights: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    device: str = "cpu",
    data: str | None = None,
    count: int = 16,
    batch_size: int = 16,
) -> list[Case]:
    """Build networks and open the images for each; see `subjects` and `open_images` for the arguments.

    BatchNorms of networks without weights get the images' statistics.
    """
    found = subjects(names, overrides=overrides, variants=variants, weights=weights, seed=seed, device=device)
    made = []
    for subject in found:
        images = open_images(
            data, subject.model, count=count, batch_size=batch_size, seed=seed, weights=subject.weights
        )
        if subject.weights is None:
            estimate_statistics(subject.model, images.batches)
        made.append(Case(subject, images))
    return made


def pair(found: Sequence[Case]) -> tuple[Case, Case]:
    """The two networks of a comparison. Raises: AnalysisError if there are not two that see the same images."""
    if len(found) != 2:
        raise AnalysisError(f"--between compares two networks, not {len(found)}\n  hint: two specs, or rows TABLE:ROW")
    first, second = found
    shapes = [tuple(case.batches[0].shape[1:]) for case in found]
    if first.images.name == NOISE and shapes[0] != shapes[1]:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
        hint = f"--set input.size={shapes[0][1]} for both, or images with --data"
        raise AnalysisError(f"noise of {sizes} is not the same image\n  hint: {hint}")
    return first, second
