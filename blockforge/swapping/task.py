"""What a swap works with: the network, images, and what may stand in its slots."""

from __future__ import annotations

import dataclasses
import os

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import BudgetError, DataError
from blockforge.spec import SpecLike
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.edits import written_out
from blockforge.swapping.foreign import foreign_alternatives, foreign_blocks
from blockforge.swapping.lessons import Lessons
from blockforge.swapping.slots import Alternative
from blockforge.swapping.sources import fewer_sources
from blockforge.swapping.widths import narrower_stages
from blockforge.train.data import Batch, Data
from blockforge.train.evaluate import reading
from blockforge.train.open_data import open_data
from blockforge.train.prepare import Overrides, make_evaluated

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the caller of a swap names; see `swap`."""

    model: Backbone | SpecLike | Architecture
    data: Data | str
    weights: str | os.PathLike[str] | None = None
    overrides: Overrides = None
    images: int = 512
    alternatives: str | os.PathLike[str] | None = None
    steps: int = 80
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """What there is of it, opened.

    Attributes:
        network: written out, in inference.
        batches: validation images to score by, as the network sees them.
        lessons: what foreign branches are taught.
        candidates: what may stand in the slots.
    """

    asked: Asked
    data: Data
    network: Backbone
    batches: list[Batch]
    lessons: Lessons
    candidates: list[Alternative]


def task_of(asked: Asked) -> Task:
    """Raises: SpecError, WeightsError, DataError; BudgetError where nothing can be thinner."""
    opened, steps = open_data(asked.data), asked.steps
    network = make_evaluated(asked.model, opened, overrides=asked.overrides, weights=asked.weights)
    network = by_layers(network.eval())
    batches = images_of(network, opened, asked.weights, asked.images, asked.seed)
    blocks = foreign_blocks(asked.alternatives) if asked.alternatives is not None else []
    lessons = Lessons(steps, steps // 4, seed=asked.seed)
    own = [
        *alternatives_of(network.arch, network.arch.source),
        *fewer_sources(network.arch, network.arch.source),
        *narrower_stages(network.arch, network.arch.source),
    ]
    foreign = foreign_alternatives(network.arch, network.arch.source, blocks, str(lessons)) if blocks else ()
    candidates = sorted([*own, *foreign], key=lambda a: (a.slot.stage, a.slot.layer, a.slot.branch))
    if not candidates:
        raise BudgetError(f"nothing in {network.arch.name} can be thinner or left out")
    return Task(asked, opened, network, batches, lessons, candidates)


def by_layers(network: Backbone) -> Backbone:
    """The network of the same spec with every layer by itself, whose tensors have the same names."""
    spec = written_out(network.arch.spec)
    same = Backbone.from_architecture(compile_spec(spec))
    same.load_state_dict(network.state_dict())
    same.classes = network.classes
    return same.eval()


def images_of(
    network: Backbone, data: Data, weights: str | os.PathLike[str] | None, images: int, seed: int
) -> list[Batch]:
    """Validation images as the network sees them, some of them drawn by `seed`. Raises: DataError if there are none."""
    held = data.part("val")
    size = min(BATCH, images, len(held))
    want, normalize = reading(network, data, weights, None, size)
    want = dataclasses.replace(want, shuffle=True, seed=seed)
    batches: list[Batch] = []
    for number, (x, labels) in enumerate(held.batches(want)):
        if number * size >= images:
            break
        batches.append((normalize(x), labels))
    if not batches:
        raise DataError(f"{data.name} has no validation images to score by")
    return batches
