"""Learning from a trained network, the teacher, beside the labels or in place of them.

The loss is (1 - share) * that of the labels + share * T^2 * KL(teacher || student), of probabilities at temperature T,
on what the student sees, mixed and augmented as it is. Sources: Hinton et al., Distilling the Knowledge in a Neural
Network (2015); Beyer et al., Knowledge distillation: A good teacher is patient and consistent (CVPR 2022).

Shapes: B images, K classes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import Outputs, by_name, main_output
from blockforge.errors import DataError, RunError
from blockforge.notes import note
from blockforge.saving import load_model
from blockforge.train.augment import Normalize, normalization
from blockforge.train.classes import labels_of, run_beside
from blockforge.train.data import Batch, Data, Split, Want, digest_of
from blockforge.train.identity import network_digest
from blockforge.train.prepare import make_evaluated
from blockforge.train.recipe import DistillSpec, Recipe

Loss = Callable[[Tensor, Mapping[str, Tensor], Tensor], Tensor]
"""What the network saw_BCHW, its outputs_BK by name, and targets_B or shares_BK -> the loss to go down on."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network that others learn from.

    Attributes:
        model: the network, in evaluation mode.
        normalize: what its images were prepared with; None: with what the student's are.
        weights: the file that it came from, whose classes it has; None: the model says them.
    """

    model: Backbone
    normalize: Normalize | None = None
    weights: Path | None = None

    @classmethod
    def of(cls, model: Backbone | Teacher) -> Teacher:
        return model if isinstance(model, Teacher) else cls(model.eval())

    def labelled(self, data: Data, recipe: Recipe) -> Data:
        """The data with the teacher's labels: those of its classes by name, or where they are of other classes, its
        answers. Raises: DataError if the recipe wants true labels, and there are none."""
        try:
            known, labels = labels_of(self.model, data, self.weights)
        except DataError as e:
            reason, _, _ = str(e).partition("\n")
            if how_to_learn(recipe).share < 1:
                hint = "--recipe-set distill.share=1 learns from the teacher's answers alone, without labels"
                raise DataError(f"the teacher's classes are not those of the data: {reason}\n  hint: {hint}") from None
            note(f"no labels are used, for {reason}; top-1 tells agreement with the teacher")
            return self._answered(data, recipe)
        if known is None or (labels == list(range(len(labels))) and len(known) == len(labels)):
            return data
        own = torch.tensor(labels)
        train, val = _Relabelled(data.train, own), _Relabelled(data.val, own)
        test = _Relabelled(data.test, own) if data.test is not None else None
        return dataclasses.replace(data, classes=known, named=True, train=train, val=val, test=test)

    def _answered(self, data: Data, recipe: Recipe) -> Data:
        """The data without their labels: nothing is trained on any, and the network is compared with the teacher."""
        classes = self.model.classes or tuple(map(str, range(self.model.num_classes)))
        normalize = normalization(recipe, data, self.model.arch.plan.input.channels)
        train = _Relabelled(data.train, torch.zeros(len(data.classes), dtype=torch.int64))
        val = _Answered(data.val, self, normalize)
        return dataclasses.replace(data, classes=classes, train=train, val=val, test=None)

    def identity(self) -> str:
        """What tells it, with its weights, from others."""
        return network_digest(self.model)

    @torch.no_grad()
    def outputs(self, x: Tensor, normalize: Normalize) -> Outputs:
        """Its outputs for what a student sees. `normalize`: how that was prepared."""
        if self.normalize is not None and self.normalize.as_dict() != normalize.as_dict():
            mean, std = (v.to(x)[:, None, None] for v in (normalize.mean_C, normalize.std_C))
            x = self.normalize.standardized(x * std + mean)
        return self.model(x)  # type: ignore[no-any-return]


def open_teacher(source: str, weights: str | os.PathLike[str] | None, data: Data | None = None) -> Teacher:
    """A teacher: the folder that a run or `save_model` wrote, or a spec with a file of weights.

    Raises: SpecError, WeightsError, DataError.
    """
    if weights is None:
        model = load_model(source)
        path = Path(source)
        weights = path / "model.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
    else:
        assert data is not None
        model = make_evaluated(source, data, weights=weights)
    run = run_beside(weights)
    seen = Normalize(run["mean"], run["std"]) if {"mean", "std"} <= run.keys() else None
    return Teacher(model.eval(), seen, Path(weights))


def how_to_learn(recipe: Recipe) -> DistillSpec:
    """What the recipe says of it, or what holds where it says nothing."""
    return recipe.distill if recipe.distill is not None else DistillSpec()


def make_loss(
    recipe: Recipe, teacher: Teacher | None, student: Backbone, normalize: Normalize, device: torch.device
) -> Loss:
    """The loss of a recipe. Raises: RunError if it needs a teacher, or the teacher takes other images.

    Args:
        normalize: how the student's images are prepared.
        device: where they are; the teacher is moved there.
    """
    by_labels = _label_loss(recipe.label_smoothing)
    if teacher is None:
        if recipe.distill is not None:
            raise RunError("the recipe says distill, and there is no teacher\n  hint: --teacher DIR, or distill: none")
        return by_labels
    sees, told = student.arch.plan.input, teacher.model.arch.plan.input
    if (sees.channels, sees.size) != (told.channels, told.size):
        sizes = " and ".join(f"{i.channels}x{i.size[0]}x{i.size[1]}" for i in (told, sees))
        raise RunError(f"teacher and network take images of other sizes, {sizes}\n  hint: --set input.size=..., alike")
    how = how_to_learn(recipe)
    teacher.model.to(device)

    def loss(x: Tensor, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        answers = teacher.outputs(x, normalize)
        own = by_name(answers)
        parts = [
            divergence(y.float(), own.get(name, main_output(answers)).float(), how.temperature)
            for name, y in outputs.items()
        ]
        taught = how.share * sum(parts[1:], parts[0])
        return taught if how.share == 1 else taught + (1 - how.share) * by_labels(x, outputs, targets)

    return loss


def divergence(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """T^2 * KL of the classes' probabilities at a temperature, its mean over the images: with T^2, gradients are alike
    at every temperature."""
    own, other = (F.log_softmax(logits / temperature, 1) for logits in (student_BK, teacher_BK))
    return F.kl_div(own, other, reduction="batchmean", log_target=True) * temperature**2


def _label_loss(smoothing: float) -> Loss:
    def loss(x: Tensor, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        losses = [F.cross_entropy(y.float(), targets, label_smoothing=smoothing) for y in outputs.values()]
        return sum(losses[1:], losses[0])

    return loss


class _Relabelled:
    """Images under other labels: for each of theirs one."""

    def __init__(self, split: Split, labels: Tensor) -> None:
        self.split, self.own, self.crops = split, labels, split.crops

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, want: Want) -> Iterator[Batch]:
        for images, labels in self.split.batches(want):
            yield images, self.own[labels]

    def statistics(self, channels: int | None = None) -> tuple[list[float], list[float]] | None:
        return self.split.statistics(channels)

    def digest(self) -> str:
        return digest_of(self.split.digest(), str(self.own.tolist()))


class _Answered(_Relabelled):
    """Images under a teacher's answers."""

    def __init__(self, split: Split, teacher: Teacher, normalize: Normalize) -> None:
        super().__init__(split, torch.zeros(0))
        self.teacher, self.normalize = teacher, normalize

    def batches(self, want: Want) -> Iterator[Batch]:
        for images, _ in self.split.batches(want):
            x = self.normalize(images.to(next(self.teacher.model.parameters()).device))
            yield images, main_output(self.teacher.outputs(x, self.normalize)).argmax(1).cpu()
