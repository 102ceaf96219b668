"""What a swap would cost, and how small a network it could give, before anything is scored or written."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.swapping.choosing import least_of
from blockforge.swapping.finetune import Tuning
from blockforge.swapping.scores import answers
from blockforge.swapping.slots import Alternative
from blockforge.swapping.ties import Ties
from blockforge.train.data import Batch
from blockforge.units import format_count

_TIMES = 3


@dataclass(frozen=True)
class Rehearsal:
    """What a swap would do on this machine.

    Attributes:
        slots, alternatives: their numbers.
        passes: of batches of `batch` images through the network, to score; seconds of one, measured.
        steps: of foreign blocks, each with passes forward and back; `training_steps` of fine-tuning one answer, which
            pass the parent too; seconds of one, measured.
        smallest: the network with least multiply-adds, and with least parameters.
    """

    parent: Architecture
    slots: int
    alternatives: int
    batch: int
    passes: int
    pass_seconds: float
    steps: int
    training_steps: int
    step_seconds: float
    smallest: tuple[Architecture, Architecture]

    @property
    def seconds(self) -> dict[str, float]:
        """Estimates by what they are of."""
        parts = {
            "scoring": self.passes * self.pass_seconds,
            "foreign blocks": self.steps * self.step_seconds,
            "fine-tuning an answer": self.training_steps * (self.step_seconds + self.pass_seconds),
        }
        return {name: seconds for name, seconds in parts.items() if seconds}

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        macs, params = self.smallest
        plain = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("parent", "smallest")
        }
        return {**plain, "seconds": self.seconds, "smallest_macs": macs.macs, "smallest_params": params.params}

    def __str__(self) -> str:
        macs, params = self.smallest
        share = 100 * macs.macs / self.parent.macs
        lines = [
            f"{self.parent.name}: {self.slots} slots, {self.alternatives} alternatives",
            f"{self.passes} passes of {self.batch} images to score, {self.pass_seconds:.3g} s each",
            f"smallest: {format_count(macs.macs)} MACs ({share:.0f}%), {format_count(params.params)} params",
        ]
        lines += [f"{name}: about {seconds:.3g} s" for name, seconds in self.seconds.items()]
        return "\n".join([*lines, "nothing was written"])


def rehearse(
    network: Backbone,
    alternatives: Sequence[Alternative],
    ties: Ties,
    batches: Sequence[Batch],
    lesson_steps: int,
    tuning: Tuning | None,
    images: int,
) -> Rehearsal:
    """Measure some passes and steps, and find the smallest networks.

    Args:
        lesson_steps: of each foreign block.
        images: to train on.
    """
    x = batches[0][0]
    student = copy.deepcopy(network).train()

    def step() -> None:
        logits = main_output(student(x))
        F.cross_entropy(logits, logits.argmax(1)).backward()

    arch = network.arch
    smallest = [least_of(arch, alternatives, cost, ties) for cost in ("macs", "params")]
    epochs, batch = (tuning.recipe.epochs, tuning.recipe.batch_size) if tuning is not None else (0, 1)
    return Rehearsal(
        arch,
        len({a.slot for a in alternatives}),
        len(alternatives),
        len(x),
        len(batches) * (len(alternatives) + 1),
        _seconds(lambda: answers(network, batches[:1])),
        lesson_steps * sum(a.is_foreign for a in alternatives),
        epochs * (images // batch) * batch // len(x),  # in steps of as many images as were measured
        _seconds(step),
        (smallest[0], smallest[1]),
    )


def _seconds(run: Callable[[], object]) -> float:
    """Of a call, the least of some, after one that warms up."""
    run()
    took = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return min(took)
