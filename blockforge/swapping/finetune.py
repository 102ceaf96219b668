"""Fine-tuning of a network that came from a trained one: by its answers and the labels, a share of its training."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import RunError
from blockforge.files import make_folder
from blockforge.notes import note
from blockforge.saving import load_weights, save_weights
from blockforge.train.data import Data
from blockforge.train.distill import Teacher, how_to_learn
from blockforge.train.evaluate import evaluate
from blockforge.train.fit import fit
from blockforge.train.logs import BEST, Folder
from blockforge.train.recipe import Recipe, load_recipe

FINETUNE = "finetune"
"""The folder of the run, in that of the network."""
START = "start.safetensors"
LR_SHARE = 0.5
"""Of the parent's highest learning rate: the network is not far from where it was."""
WARMUP_SHARE = 0.1
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%")


@dataclass(frozen=True)
class Tuning:
    """How networks are fine-tuned.

    Attributes:
        recipe: of the run, with its epochs.
        whole: that of a training from scratch as long as the parent's; None: it is not known.
    """

    recipe: Recipe
    whole: Recipe | None

    def unlabelled(self) -> Tuning:
        """The same by the parent's answers alone."""
        alone = {"distill": {"share": 1.0, "temperature": how_to_learn(self.recipe).temperature}}
        whole = load_recipe(self.whole, alone) if self.whole is not None else None
        return Tuning(load_recipe(self.recipe, alone), whole)


def tuning_of(
    length: str,
    weights: str | os.PathLike[str] | None,
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> Tuning:
    """How to fine-tune networks for so long.

    Args:
        length: `20%` of the parent's epochs, at least one; or a number of epochs.
        weights: of the parent, in the folder of its run, which says how it was trained.
        recipe: in place of the parent's at half its learning rate.
    Raises: RunError if the length is none, or a share of what nobody knows; SpecError.
    """
    settings = Folder(Path(weights).parent).settings() if weights is not None else None
    whole = load_recipe(_said(settings["recipe"])) if settings is not None else None
    epochs = _epochs(length, whole)
    if recipe is not None:
        return Tuning(load_recipe(recipe, {"epochs": epochs}), whole)
    if whole is None:
        return Tuning(load_recipe("finetune", {"epochs": epochs}), None)
    short = {
        "epochs": epochs,
        "lr": whole.lr * LR_SHARE,
        "warmup_epochs": min(whole.warmup_epochs, WARMUP_SHARE * epochs),
    }
    return Tuning(load_recipe(whole, short), whole)


def finetuned(
    model: Backbone, teacher: Teacher, data: Data, tuning: Tuning, folder: Path | None, seed: int, progress: bool
) -> Backbone:
    """The network after fine-tuning by its teacher; or as it was, if that is better on the images to choose by. With a
    folder, its best epoch, and a run that was stopped goes on. Raises: as `fit`; KeyboardInterrupt after a signal."""
    recipe = tuning.recipe
    taught = teacher.labelled(data, recipe)
    model.classes = taught.classes
    before = evaluate(model, taught, recipe=recipe, split="val").top1
    weights = None
    if folder is not None:
        make_folder(folder)
        weights = folder / START
        save_weights(model, weights)
    other = Backbone.from_architecture(model.arch)
    other.load_state_dict(model.state_dict())
    result = fit(
        other, data, recipe, seed=seed, out=folder, weights=weights, teacher=teacher, progress=progress
    )  # fmt: skip
    stop_if(result.signal)
    after = result.final
    if folder is not None:
        load_weights(other, folder / BEST)
        after = result.best
    if after < before:
        note(f"{model.arch.name} stays as it was: top-1 {after:.2f} after fine-tuning, {before:.2f} before")
        return model
    other.classes = model.classes
    return other.eval()


def stop_if(received: int | None) -> None:
    """End where a signal ended a run, which is saved: the signal does now what it would have done."""
    if received is not None:
        signal.raise_signal(received)
        raise KeyboardInterrupt


def _epochs(length: str, whole: Recipe | None) -> int:
    if length.strip().isdigit() and int(length) > 0:
        return int(length)
    match = _SHARE.fullmatch(length.strip())
    if match is None or not float(match[1]):
        raise RunError(f"'{length}' is no length of a training\n  hint: 20% of the parent's, or 3 for three epochs")
    if whole is None:
        raise RunError(
            f"{length} of the parent's training is not known: no run.json lies beside its weights\n"
            "  hint: --finetune 3 says epochs; or --weights in the folder of a run"
        )
    wanted = whole.epochs * float(match[1]) / 100
    if wanted < 1:
        note(f"{length} of {whole.epochs} epochs is less than one: networks are fine-tuned for one epoch")
    return max(1, round(wanted))


def _said(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as a run keeps it, without what it says nothing of."""
    return {k: _said(v) if isinstance(v, dict) else v for k, v in recipe.items() if v is not None}
