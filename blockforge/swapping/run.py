"""`swap`: a trained network brought to budgets, with its weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import BudgetError, DataError
from blockforge.extras import need
from blockforge.notes import note
from blockforge.spec import SpecLike
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.beside import Judge, Work, stand_beside
from blockforge.swapping.choosing import check_reachable, choose
from blockforge.swapping.crew import work_together
from blockforge.swapping.edits import written_out
from blockforge.swapping.finetune import tuning_of
from blockforge.swapping.foreign import foreign_alternatives, foreign_blocks
from blockforge.swapping.importance import importances
from blockforge.swapping.latency import timed
from blockforge.swapping.lessons import OWN_LR, Lessons, distilled, training_images
from blockforge.swapping.pairs import Losses
from blockforge.swapping.record import known_scores, recorded
from blockforge.swapping.rehearsal import Rehearsal, rehearse
from blockforge.swapping.result import Answer, SwapResult
from blockforge.swapping.scores import METHOD, Score, answers, compare, score
from blockforge.swapping.shared import alone
from blockforge.swapping.slots import Alternative, priced
from blockforge.swapping.sources import fewer_sources
from blockforge.swapping.statistics import settled
from blockforge.swapping.targets import is_sum, targets
from blockforge.swapping.ties import Ties, ties_of
from blockforge.swapping.weights import Kept, most_important, with_alternatives
from blockforge.swapping.widths import narrower_stages
from blockforge.train.classes import labels_of
from blockforge.train.data import Batch, Data
from blockforge.train.evaluate import reading
from blockforge.train.identity import network_digest
from blockforge.train.open_data import open_data
from blockforge.train.prepare import Overrides, make_evaluated
from blockforge.train.recipe import Recipe
from blockforge.units import Budget

BATCH = 64


def swap(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    budget: str | Sequence[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    overrides: Overrides = None,
    images: int = 512,
    alternatives: str | os.PathLike[str] | None = None,
    steps: int = 80,
    score_steps: int = 0,
    finetune: str | None = None,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    controls: bool = False,
    workers: int = 1,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> SwapResult:
    """Bring a trained network to budgets by thinner branches and fewer of them, with its weights.

    Every residual branch is a slot. Thinner forms of its block take the units (channels, heads, states) that matter
    most from the network's own weights; each of them, and nothing in its place, is scored alone in the network by how
    far its answers move; and for each budget the combination with the smallest sum of scores is found exactly.

    Args:
        model, data, weights, overrides: as for `bf.train.evaluate`. Labels serve only to tell accuracies.
        budget: `3GFLOPs,20Mparams`, `60%` of the network's multiply-adds, `100%..30%` for a family; or several.
        images: of the validation images, on which alternatives are scored.
        alternatives: a page of `blocks` that may stand in for branches too; they learn from training images.
        steps: of each of these alone; a quarter as many follow inside the network.
        score_steps: so many steps of thinner branches too, before they are scored; their weights are then those learnt.
        finetune: how long each answer is trained on, taught by `model`: `20%` of the epochs of the run whose folder
            holds `weights`, or a number of epochs. The test images are then touched, once a network, at the end.
        recipe: of that; None: that of the run at half its learning rate, or `finetune`.
        controls: fine-tune the other combinations that the report shows too, and train narrower and shallower networks
            from scratch as long as `model`, with and without it as a teacher.
        workers: processes that score and fill the library in `out`, each with a GPU of its own if there are any;
            `model` and `data` are then names or files, which they open.
        seed: which images, and of all trainings.
        out: folder of the scores, which go on where they were stopped, and of the networks; None: nothing is written.
        progress: show it on standard error.
    Raises: SpecError, WeightsError, DataError; BudgetError for a budget that no combination reaches, with the smallest;
        RunError if `out` holds the scores of another network or other images, or `finetune` says no length.
    """
    need("train", "scipy")
    folder = Path(out) if out is not None else None
    tuning = tuning_of(finetune, weights, recipe) if finetune is not None else None
    work = Work(tuning, controls, folder, seed, progress)
    if workers > 1:
        arguments = {
            "model": model, "data": data, "budget": budget, "weights": weights, "overrides": overrides,
            "images": images, "alternatives": alternatives, "steps": steps, "score_steps": score_steps, "seed": seed,
            "progress": progress,
        }  # fmt: skip
        work_together(arguments, workers, folder)
    found = _scored(
        model, data, budget, weights, overrides, images, alternatives, steps, score_steps, seed, folder, progress, "cpu"
    )
    network, candidates, kept, labels = found.network, found.candidates, found.kept, found.labels
    losses, ties, teacher, batches = Losses.of(candidates, found.scores), found.ties, found.teacher, found.batches
    own = compare(teacher, teacher, labels)
    with alone(folder, "answers"):
        given = []
        for name, limits in found.wanted:
            chosen = choose(network.arch, candidates, losses, name, limits, ties)
            other = with_alternatives(network, network.arch.source, [candidates[i] for i in chosen], kept).eval()
            joint = compare(teacher, answers(other, batches), labels)
            given.append(Answer(name, other, tuple(candidates[i] for i in chosen), losses.total(chosen), joint))
        result = SwapResult(network, own, tuple(candidates), tuple(found.scores), tuple(given))
        if folder is not None or tuning is not None:
            judge = Judge(network, teacher, batches, labels, found.data, weights)
            result = stand_beside(result, [limits for _, limits in found.wanted], ties, kept, judge, work)
        if folder is not None:
            result.save(folder)
        return result


def fill(
    model: SpecLike,
    data: str,
    budget: str | Sequence[str],
    *,
    out: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    overrides: Overrides = None,
    images: int = 512,
    alternatives: str | os.PathLike[str] | None = None,
    steps: int = 80,
    score_steps: int = 0,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> None:
    """Fill the library and the scores of a swap's folder, beside others that do, and give no networks.

    Args:
        device: what the network runs on; others as for `swap`.
    Raises: as `swap`.
    """
    need("train", "scipy")
    _scored(
        model, data, budget, weights, overrides, images, alternatives, steps, score_steps, seed, Path(out), progress,
        device,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Found:
    """What answers are chosen by."""

    data: Data
    network: Backbone
    batches: list[Batch]
    teacher: Tensor
    labels: Tensor | None
    wanted: list[tuple[str, Budget]]
    candidates: list[Alternative]
    ties: Ties
    kept: dict[Alternative, Any]
    scores: list[Score]


def _scored(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    budget: str | Sequence[str],
    weights: str | os.PathLike[str] | None,
    overrides: Overrides,
    images: int,
    alternatives: str | os.PathLike[str] | None,
    steps: int,
    score_steps: int,
    seed: int,
    folder: Path | None,
    progress: bool,
    device: str,
) -> _Found:
    """Arguments are those of `swap` and `fill`."""
    task = _task(model, data, weights, overrides, images, alternatives, steps, seed)
    task.network.to(device)
    opened, network, batches, candidates = task.data, task.network, task.batches, task.found
    wanted = targets([budget] if isinstance(budget, str) else budget, network.arch)
    candidates = _timed(network, _priced(network, candidates, wanted), wanted, progress)
    ties = ties_of(network.arch, candidates)
    check_reachable(network.arch, candidates, wanted, ties)
    teacher, labels = answers(network, batches), _labels(network, opened, weights, batches)
    whose = {"network": network_digest(network), "data": opened.part("val").digest()}
    method = f"{METHOD}, after {score_steps} steps of each thinner branch" if score_steps else METHOD
    run = {**whose, "images": len(teacher), "seed": seed, "method": method}
    known_scores(folder, run)  # those of another run are refused before anything is computed
    kept: dict[Alternative, Any] = {**most_important(candidates, importances(network, candidates, batches))}
    kept |= settled(network, candidates, kept, batches)
    kept |= _taught(dataclasses.replace(task, found=candidates), kept, weights, score_steps, folder, run, progress)
    scores = recorded(candidates, lambda a: score(network, a, kept, teacher, batches, labels), folder, run, progress)
    return _Found(opened, network, batches, teacher, labels, wanted, candidates, ties, kept, scores)


def rehearsed(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    *,
    weights: str | os.PathLike[str] | None = None,
    overrides: Overrides = None,
    images: int = 512,
    alternatives: str | os.PathLike[str] | None = None,
    steps: int = 80,
    finetune: str | None = None,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Rehearsal:
    """What `swap` with these arguments would cost here, and the smallest networks that it could give. Writes nothing.

    Raises: as `swap`.
    """
    need("train", "scipy")
    tuning = tuning_of(finetune, weights, recipe) if finetune is not None else None
    task = _task(model, data, weights, overrides, images, alternatives, steps, seed)
    each = task.lessons.alone + task.lessons.inside
    ties = ties_of(task.network.arch, task.found)
    return rehearse(task.network, task.found, ties, task.batches, each, tuning, len(task.data.train))


def _taught(
    task: _Task,
    kept: Kept,
    weights: str | os.PathLike[str] | None,
    score_steps: int,
    folder: Path | None,
    run: Mapping[str, Any],
    progress: bool,
) -> dict[Alternative, Mapping[str, Tensor]]:
    """What foreign branches learn, and thinner ones if they are to."""
    own = [a for a in task.found if a.cut is not None and not a.is_whole] if score_steps else []
    foreign = [a for a in task.found if a.is_foreign]
    if not own and not foreign:
        return {}
    lessons = task.lessons
    images = training_images(task.network, task.data, weights, lessons.batch_size, lessons.seed)
    depends = {"network": run["network"], "data": task.data.part("train").digest()}
    taught = distilled(task.network, foreign, images, lessons, folder, depends, progress) if foreign else {}
    if own:
        few = dataclasses.replace(lessons, alone=score_steps, inside=score_steps // 4, lr=OWN_LR)
        depends |= {"images": run["images"], "lessons": str(few)}  # by which units were kept
        taught |= distilled(task.network, own, images, few, folder, depends, progress, kept)
    return taught


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a swap works with: data, a written out network, images to score by, and what may stand in its slots."""

    data: Data
    network: Backbone
    batches: list[Batch]
    lessons: Lessons
    found: list[Alternative]


def _task(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    weights: str | os.PathLike[str] | None,
    overrides: Overrides,
    images: int,
    alternatives: str | os.PathLike[str] | None,
    steps: int,
    seed: int,
) -> _Task:
    """Arguments are those of `swap`."""
    opened = open_data(data)
    network = _written_out(make_evaluated(model, opened, overrides=overrides, weights=weights).eval())
    batches = _batches(network, opened, weights, images, seed)
    blocks = foreign_blocks(alternatives) if alternatives is not None else []
    lessons = Lessons(steps, steps // 4, seed=seed)
    own = [
        *alternatives_of(network.arch, network.arch.source),
        *fewer_sources(network.arch, network.arch.source),
        *narrower_stages(network.arch, network.arch.source),
    ]
    foreign = foreign_alternatives(network.arch, network.arch.source, blocks, str(lessons)) if blocks else ()
    candidates = sorted([*own, *foreign], key=lambda a: (a.slot.stage, a.slot.layer, a.slot.branch))
    if not candidates:
        raise BudgetError(f"nothing in {network.arch.name} can be thinner or left out")
    return _Task(opened, network, batches, lessons, candidates)


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


def _written_out(network: Backbone) -> Backbone:
    """The network of the same spec with every layer by itself, whose tensors have the same names."""
    spec = written_out(network.arch.spec)
    same = Backbone.from_architecture(compile_spec(spec))
    same.load_state_dict(network.state_dict())
    same.classes = network.classes
    return same.eval()


def _batches(
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


def _labels(
    network: Backbone, data: Data, weights: str | os.PathLike[str] | None, batches: Sequence[Batch]
) -> Tensor | None:
    """The network's label of each image; None, which is said, where its classes are not those of the data."""
    try:
        _, own = labels_of(network, data, weights)
    except DataError as e:
        note(f"no accuracy is told, for {str(e).partition(chr(10))[0]}")
        return None
    return torch.tensor(own)[torch.cat([labels for _, labels in batches])]
