"""Every alternative of a swap with its score, and what an answer for a budget is chosen by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import BudgetError, DataError
from blockforge.notes import note
from blockforge.swapping.choosing import check_reachable
from blockforge.swapping.importance import importances
from blockforge.swapping.latency import timed
from blockforge.swapping.lessons import OWN_LR, distilled, training_images
from blockforge.swapping.record import known_scores, recorded
from blockforge.swapping.scores import METHOD, Score, answers, score
from blockforge.swapping.slots import Alternative, priced
from blockforge.swapping.statistics import settled
from blockforge.swapping.targets import is_sum, targets
from blockforge.swapping.task import Asked, Task, task_of
from blockforge.swapping.ties import Ties, ties_of
from blockforge.swapping.weights import Kept, most_important
from blockforge.train.classes import labels_of
from blockforge.train.identity import network_digest
from blockforge.units import Budget


@dataclasses.dataclass(frozen=True)
class Scored:
    """What answers are chosen by.

    Attributes:
        task: with the candidates as they are scored, one by one in `scores`.
        teacher: answers of the network to the images.
        labels: of these images, if they are the network's.
        wanted: budgets by their names.
        kept: what each candidate has of the network's tensors.
    """

    task: Task
    teacher: Tensor
    labels: Tensor | None
    wanted: list[tuple[str, Budget]]
    ties: Ties
    kept: dict[Alternative, Any]
    scores: list[Score]


def scored(
    asked: Asked,
    budget: str | Sequence[str],
    score_steps: int,
    folder: Path | None,
    progress: bool,
    device: str = "cpu",
) -> Scored:
    """Arguments are those of `swap` and `fill`."""
    task = task_of(asked)
    network, batches = task.network.to(device), task.batches
    wanted = targets([budget] if isinstance(budget, str) else budget, network.arch)
    candidates = _timed(network, _priced(network, task.candidates, wanted), wanted, progress)
    task = dataclasses.replace(task, candidates=candidates)
    ties = ties_of(network.arch, candidates)
    check_reachable(network.arch, candidates, wanted, ties)
    teacher, labels = answers(network, batches), _labels(task)
    whose = {"network": network_digest(network), "data": task.data.part("val").digest()}
    method = f"{METHOD}, after {score_steps} steps of each thinner branch" if score_steps else METHOD
    run = {**whose, "images": len(teacher), "seed": asked.seed, "method": method}
    known_scores(folder, run)  # those of another run are refused before anything is computed
    kept: dict[Alternative, Any] = {**most_important(candidates, importances(network, candidates, batches))}
    kept |= settled(network, candidates, kept, batches)
    kept |= _taught(task, kept, score_steps, folder, run, progress)
    scores = recorded(candidates, lambda a: score(network, a, kept, teacher, batches, labels), folder, run, progress)
    return Scored(task, teacher, labels, wanted, ties, kept, scores)


def _taught(
    task: Task,
    kept: Kept,
    score_steps: int,
    folder: Path | None,
    run: Mapping[str, Any],
    progress: bool,
) -> dict[Alternative, Mapping[str, Tensor]]:
    """What foreign branches learn, and thinner ones if they are to."""
    own = [a for a in task.candidates if a.cut is not None and not a.is_whole] if score_steps else []
    foreign = [a for a in task.candidates if a.is_foreign]
    if not own and not foreign:
        return {}
    lessons = task.lessons
    images = training_images(task.network, task.data, task.asked.weights, lessons.batch_size, lessons.seed)
    depends = {"network": run["network"], "data": task.data.part("train").digest()}
    taught = distilled(task.network, foreign, images, lessons, folder, depends, progress) if foreign else {}
    if own:
        few = dataclasses.replace(lessons, alone=score_steps, inside=score_steps // 4, lr=OWN_LR)
        depends |= {"images": run["images"], "lessons": str(few)}  # by which units were kept
        taught |= distilled(task.network, own, images, few, folder, depends, progress, kept)
    return taught


def _priced(
    network: Backbone, alternatives: list[Alternative], wanted: Sequence[tuple[str, Budget]]
) -> list[Alternative]:
    """The alternatives with all that they save of what is a sum over slots and has a limit."""
    limited = {cost for _, limits in wanted for cost in limits.limits if is_sum(cost)}
    further = limited - {cost for alternative in alternatives for cost in alternative.saved}
    return priced(network.arch, alternatives, further) if further else alternatives


def _timed(
    network: Backbone, alternatives: list[Alternative], wanted: Sequence[tuple[str, Budget]], progress: bool
) -> list[Alternative]:
    """The alternatives with what they save in time, where a budget limits it. Raises: BudgetError."""
    devices = {limits.device or "cpu" for _, limits in wanted if limits.latency_ms is not None}
    if len(devices) > 1:
        raise BudgetError(f"latencies are of one device, not of {', '.join(sorted(devices))}\n  hint: a swap for each")
    return timed(network, alternatives, devices.pop(), progress) if devices else alternatives


def _labels(task: Task) -> Tensor | None:
    """The network's label of each image; None, which is said, where its classes are not those of the data."""
    try:
        _, own = labels_of(task.network, task.data, task.asked.weights)
    except DataError as e:
        note(f"no accuracy is told, for {str(e).partition(chr(10))[0]}")
        return None
    return torch.tensor(own)[torch.cat([labels for _, labels in task.batches])]
