"""`swap`: a trained network brought to budgets, with its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.extras import need
from blockforge.spec import SpecLike
from blockforge.swapping.beside import Judge, Work, stand_beside
from blockforge.swapping.choosing import choose
from blockforge.swapping.crew import work_together
from blockforge.swapping.finetune import tuning_of
from blockforge.swapping.pairs import Losses
from blockforge.swapping.rehearsal import Rehearsal, rehearse
from blockforge.swapping.result import Answer, SwapResult
from blockforge.swapping.scored import scored
from blockforge.swapping.scores import answers, compare
from blockforge.swapping.shared import alone
from blockforge.swapping.task import Asked, task_of
from blockforge.swapping.ties import ties_of
from blockforge.swapping.weights import with_alternatives
from blockforge.train.data import Data
from blockforge.train.prepare import Overrides
from blockforge.train.recipe import Recipe


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
    asked = Asked(model, data, weights, overrides, images, alternatives, steps, seed)
    if workers > 1:
        more = {"budget": budget, "score_steps": score_steps, "progress": progress}
        work_together({**vars(asked), **more}, workers, folder)
    found = scored(asked, budget, score_steps, folder, progress)
    task, kept, labels, ties, teacher = found.task, found.kept, found.labels, found.ties, found.teacher
    network, candidates, batches = task.network, task.candidates, task.batches
    losses = Losses.of(candidates, found.scores)
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
            judge = Judge(network, teacher, batches, labels, task.data, weights)
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
    asked = Asked(model, data, weights, overrides, images, alternatives, steps, seed)
    scored(asked, budget, score_steps, Path(out), progress, device)


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
    task = task_of(Asked(model, data, weights, overrides, images, alternatives, steps, seed))
    each = task.lessons.alone + task.lessons.inside
    ties = ties_of(task.network.arch, task.candidates)
    return rehearse(task.network, task.candidates, ties, task.batches, each, tuning, len(task.data.train))
