"""`fit`: train a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import OutputError, RunError
from blockforge.extras import need
from blockforge.notes import note
from blockforge.saving import load_model, save_model
from blockforge.spec import SpecLike
from blockforge.trackers import check_trackers
from blockforge.train.augment import normalization
from blockforge.train.batches import check_batches, plan_batches, tell_batches
from blockforge.train.checkpoint import CHECKPOINT
from blockforge.train.data import Data, Want
from blockforge.train.distill import Teacher, make_loss
from blockforge.train.epoch_progress import Reporter, reporter
from blockforge.train.identity import compare, identity, network_digest, tell_changes
from blockforge.train.launch import join, together
from blockforge.train.logs import Folder
from blockforge.train.loop import NotFiniteError, Trainer
from blockforge.train.open_data import open_data
from blockforge.train.prepare import Overrides, make_model, workers_for
from blockforge.train.recipe import Recipe, load_recipe
from blockforge.train.result import DivergedError, TrainResult
from blockforge.weights.files import Weights
from blockforge.weights.transplant import move_weights


def fit(
    model: Backbone | SpecLike | Architecture,
    data: Data | str,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] = "micro",
    *,
    epochs: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    init: Backbone | str | os.PathLike[str] | None = None,
    overrides: Overrides = None,
    recipe_overrides: Mapping[str, Any] | list[str] | None = None,
    teacher: Backbone | Teacher | None = None,
    progress: bool | Reporter = False,
    log: Sequence[str] = (),
) -> TrainResult:
    """Train a network.

    Args:
        model: what `bf.build` takes; its classes follow the data. Or a built network, which is trained in place.
        data: a source (`digits`, `fashion`, `imagefolder:PATH`, `npz:FILE`, ...), or an opened one.
        recipe: a packaged name, a file, a mapping, or a Recipe.
        epochs: in place of the recipe's.
        seed: of the initialisation and of everything drawn in training.
        out: folder of checkpoints, logs and weights; a run that it holds goes on, also to more epochs than it was
            begun with. None: nothing is written.
        weights: a file to start from, or a `Weights`; a classifier of another number of classes is replaced.
        init: a network to start from, or the folder of one, as far as its layers are alike (see `bf.transplant`); what
            was copied, cut, grown and made anew is said.
        overrides, recipe_overrides: values to replace in the spec and in the recipe.
        teacher: a trained network whose answers this one learns, as the recipe's `distill` says. Where its classes are
            not those of the data, `share: 1` learns without labels, and top-1 tells agreement with it.
        log: trackers that are told of the run beside TensorBoard: `mlflow`, `wandb`.
        progress: show it on standard error, or a `Reporter` of your own, which may end the run by raising.
    Raises:
        SpecError, WeightsError, DataError, RunError: before anything is written.
        DivergedError: if the loss becomes infinite or NaN; it holds the run up to its last good epoch.
    """
    need("train", "accelerate", "kornia")
    check_trackers(log, Path(out) if out is not None else None)
    changes = dict(recipe_overrides) if isinstance(recipe_overrides, Mapping) else list(recipe_overrides or ())
    settled = load_recipe(load_recipe(recipe, changes), {"epochs": epochs} if epochs is not None else None)
    opened = open_data(data)
    taught_by = Teacher.of(teacher) if teacher is not None else None
    if taught_by is not None:
        opened = taught_by.labelled(opened, settled)
    network = make_model(model, opened, overrides=overrides, weights=weights, seed=seed)
    begun = _begun(init, network, weights) if init is not None else None
    folder = Path(out) if out is not None else None
    with torch.random.fork_rng():  # the caller's generator is as before
        start = Weights.of(weights) if weights is not None else None
        return _fit(network, opened, settled, seed, folder, start, begun, taught_by, progress, log)


def _begun(init: Backbone | str | os.PathLike[str], network: Backbone, weights: str | os.PathLike[str] | None) -> str:
    """Put the weights of another network into one that is to be trained; says what tells that one from others."""
    if weights is not None:
        raise RunError("a run starts from a file of weights, or from another network\n  hint: give weights or init")
    source = init if isinstance(init, Backbone) else load_model(init)
    name = source.arch.name if isinstance(init, Backbone) else os.fspath(init)
    note(f"from {name}: {move_weights(source, network)}")
    return network_digest(source)


def _fit(
    network: Backbone,
    data: Data,
    recipe: Recipe,
    seed: int,
    out: Path | None,
    weights: Weights | None,
    init: str | None,
    teacher: Teacher | None,
    progress: bool | Reporter,
    log: Sequence[str],
) -> TrainResult:
    accelerator = join()
    image = network.arch.plan.input
    normalize = normalization(recipe, data, image.channels)
    want = Want(
        (image.size[0], image.size[1]), image.channels, 1,
        seed=seed, rank=accelerator.process_index, world=accelerator.num_processes,
        crop_pct=recipe.crop_pct, workers=workers_for(recipe, data),
    )  # fmt: skip
    batches = plan_batches(recipe, data, want.world)
    check_batches(network, batches)
    loss = make_loss(recipe, teacher, network, normalize, accelerator.device)
    folder: Folder | None = None
    settings: dict[str, Any] = {}
    if out is not None:
        of_teacher = teacher.identity() if teacher is not None else None
        settings = identity(network.arch, data, recipe, seed, weights, want.world, of_teacher, init)
        folder = Folder(out)
    shown = progress if accelerator.is_main_process or not isinstance(progress, bool) else False
    trainer = Trainer(
        network, data, recipe, normalize, want, batches, accelerator,
        folder=folder, settings=settings, reporter=reporter(shown), loss=loss,
    )  # fmt: skip
    if accelerator.is_main_process:
        tell_batches(batches, recipe, data, want.world)
    if folder is None:
        return _run(trainer, network)
    preprocess = {**normalize.as_dict(), "crop_pct": recipe.crop_pct, "classes": list(data.classes)}
    before: dict[str, Any] | None = None
    with contextlib.ExitStack() as stack:
        with together(accelerator):
            if accelerator.is_main_process:
                stack.enter_context(_held(folder))
                if (before := folder.settings()) is not None:
                    compare(before, settings, folder.path)
        with together(accelerator):
            trainer.resume()
        if not accelerator.is_main_process:
            return _run(trainer, network)
        if before is not None:
            tell_changes(before, settings, recipe, batches.steps, trainer.position.step)
        folder.begin(settings, preprocess, trainer.position.step, network.spec.name, log)
        return _recorded(trainer, network, folder)


@contextlib.contextmanager
def _held(folder: Folder) -> Iterator[None]:
    """The folder for this run. What its disk refuses ends the run with a word on how to go on. Raises: RunError."""
    try:
        with folder.held():
            yield
    except OutputError as e:
        kept = (folder.path / CHECKPOINT).exists()
        goes_on = "; its last checkpoint is kept, and the same command goes on with it" if kept else ""
        raise RunError(f"cannot write to {folder.path}: {e.reason}{goes_on}") from None


def _run(trainer: Trainer, network: Backbone) -> TrainResult:
    """Train, and say what came out. Raises: DivergedError."""
    try:
        signal = trainer.run()
    except NotFiniteError as e:
        result = _result(trainer, network)
        epochs = len(result.history)
        kept = f"the weights of epoch {epochs} are" if epochs else "no epoch had ended: the weights before training are"
        where = f" in {trainer.folder.path}" if trainer.folder is not None else ""
        hint = "a lower lr, a longer warm-up (warmup_epochs) or a smaller clip_grad"
        raise DivergedError(f"{e}\n  {kept} kept{where}\n  hint: {hint}", result) from None
    return _result(trainer, network, signal)


def _result(trainer: Trainer, network: Backbone, signal: int | None = None) -> TrainResult:
    network.load_state_dict(trainer.evaluated.state_dict())
    position = trainer.position
    return TrainResult(list(position.history), position.seconds + position.epoch_seconds, network, signal)


def _recorded(trainer: Trainer, network: Backbone, folder: Folder) -> TrainResult:
    """`_run`, with weights and curves in the folder at its end."""
    try:
        result = _run(trainer, network)
    except DivergedError as e:
        _write(e.result, folder)
        raise
    if result.signal is None:
        _write(result, folder)
    else:
        folder.stopped()
    return result


def _write(result: TrainResult, folder: Folder) -> None:
    save_model(result.model, folder.path)
    if result.history:
        folder.curves(result.history, result.model.spec.name)
