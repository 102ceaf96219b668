"""Answers fine-tuned, and other networks of their budgets beside them, fine-tuned or trained alike."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from blockforge.api import build
from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import RunError
from blockforge.notes import note
from blockforge.swapping.finetune import FINETUNE, Tuning, finetuned, stop_if
from blockforge.swapping.others import DEPTH, TAUGHT, WIDTH, Other, combinations, narrower, shallower
from blockforge.swapping.pairs import Losses
from blockforge.swapping.result import Answer, SwapResult
from blockforge.swapping.scores import Score, answers, compare
from blockforge.swapping.ties import Ties
from blockforge.swapping.weights import Kept, with_alternatives
from blockforge.train.classes import labels_of
from blockforge.train.data import Batch, Data
from blockforge.train.distill import Teacher
from blockforge.train.evaluate import reading
from blockforge.train.fit import fit
from blockforge.units import Budget

CONTROLS = "controls"
"""The folder of the runs of networks that are only compared with."""
_BATCH = 256


@dataclass(frozen=True)
class Judge:
    """Networks beside the one that they come from.

    Attributes:
        parent: that one, with its answers on `batches`, images of the validation part, and their labels.
        data, weights: what `parent` was opened with.
    """

    parent: Backbone
    answers: Tensor
    batches: Sequence[Batch]
    labels: Tensor | None
    data: Data
    weights: str | os.PathLike[str] | None

    @property
    def teacher(self) -> Teacher:
        _, normalize = reading(self.parent, self.data, self.weights, None, _BATCH)
        return Teacher(self.parent, normalize)

    def score(self, model: Backbone) -> Score:
        """How it answers the images that alternatives are scored by."""
        return compare(self.answers, answers(model.eval(), self.batches), self.labels)

    def last_word(self, model: Backbone) -> Score | None:
        """How it answers the test images, which nothing is chosen by; None where there are none."""
        if self.data.test is None:
            return None
        return compare(self._tested, answers(model.eval(), self._test()), self._test_labels)

    @functools.cached_property
    def _tested(self) -> Tensor:
        return answers(self.parent, self._test())

    @functools.cached_property
    def _test_labels(self) -> Tensor | None:
        if self.labels is None:
            return None
        _, own = labels_of(self.parent, self.data, self.weights)
        return torch.tensor(own)[torch.cat([labels for _, labels in self._test()])]

    def _test(self) -> Iterator[Batch]:
        assert self.data.test is not None
        want, normalize = reading(self.parent, self.data, self.weights, None, _BATCH)
        for images, labels in self.data.test.batches(want):
            yield normalize(images), labels


@dataclass(frozen=True)
class Work:
    """What is to be done beside the choice.

    Attributes:
        tuning: of the answers; None: they stay as they are.
        controls: whether other combinations are fine-tuned too, and networks trained from scratch.
        folder: of the runs; None: nothing is written, and nothing goes on.
    """

    tuning: Tuning | None
    controls: bool
    folder: Path | None
    seed: int
    progress: bool

    def __post_init__(self) -> None:
        if self.controls and (self.tuning is None or self.tuning.whole is None):
            why = "networks beside the answers are fine-tuned as they are" if self.tuning is None else "no run.json"
            hint = "--finetune 20%, and --weights in the folder of the run that trained the parent"
            raise RunError(f"controls are trained as long as the parent: {why}\n  hint: {hint}")

    def run(self, *names: str) -> Path | None:
        """The folder of a run."""
        return self.folder.joinpath(*(n.replace("%", "pct").replace(" ", "_") for n in names)) if self.folder else None


def stand_beside(
    result: SwapResult,
    budgets: Sequence[Budget],
    ties: Ties,
    kept: Kept,
    judge: Judge,
    work: Work,
) -> SwapResult:
    """The result with its answers fine-tuned, and with other networks of the same budgets.

    Args:
        budgets: of each answer.
        ties: between alternatives.
    """
    if work.tuning is not None and judge.labels is None:
        work = dataclasses.replace(work, tuning=work.tuning.unlabelled())
    tuned = tuple(_answer(answer, judge, work) for answer in result.answers)
    others: list[Other] = []
    for answer, budget in zip(tuned, budgets, strict=True):
        others += _of_alternatives(result, answer, budget, ties, kept, judge, work)
        if work.controls:
            others += _from_scratch(answer, judge, work)
    tested = judge.last_word(judge.parent) if work.tuning is not None else None
    return dataclasses.replace(result, answers=tuned, others=tuple(others), tested=tested)


def _answer(answer: Answer, judge: Judge, work: Work) -> Answer:
    if work.tuning is None:
        return answer
    model = _tuned(answer.model, judge, work, answer.folder, FINETUNE)
    return dataclasses.replace(answer, model=model, tested=judge.last_word(model))


def _tuned(model: Backbone, judge: Judge, work: Work, *folder: str) -> Backbone:
    assert work.tuning is not None
    return finetuned(model, judge.teacher, judge.data, work.tuning, work.run(*folder), work.seed, work.progress)


def _of_alternatives(
    result: SwapResult,
    answer: Answer,
    budget: Budget,
    ties: Ties,
    kept: Kept,
    judge: Judge,
    work: Work,
) -> Iterator[Other]:
    costs, alternatives = [s.kl for s in result.scores], result.alternatives
    losses = Losses.of(alternatives, result.scores)
    chosen = [i for i, a in enumerate(alternatives) if a in answer.chosen]
    source = result.parent.arch.source
    for way, picked in combinations(result.parent.arch, alternatives, costs, budget, chosen, ties, work.seed):
        model = with_alternatives(result.parent, source, [alternatives[i] for i in picked], kept).eval()
        expected, score, tested = losses.total(picked), judge.score(model), None
        if work.controls:
            tested = judge.last_word(_tuned(model, judge, work, CONTROLS, f"{answer.folder} {way}"))
        yield Other(answer.budget, way, model.arch, expected, score, tested)


def _from_scratch(answer: Answer, judge: Judge, work: Work) -> Iterator[Other]:
    """Networks that cost what the answer costs, trained as long as the parent was."""
    assert work.tuning is not None
    assert work.tuning.whole is not None
    macs, parent = answer.model.arch.macs, judge.parent.arch
    cuts = {WIDTH: narrower(parent, macs), DEPTH: shallower(parent, macs)}
    for way, arch in cuts.items():
        if arch is None:
            note(f"{answer.budget}: no network is {way.partition(',')[0]} by so much")
            continue
        for teacher in (None, judge.teacher):
            if teacher is None and judge.labels is None:
                continue
            name = way if teacher is None else f"{way}{TAUGHT}"
            model = _trained(arch, answer, teacher, name, judge, work)
            yield Other(answer.budget, name, arch, None, judge.score(model), judge.last_word(model))


def _trained(
    arch: Architecture, answer: Answer, teacher: Teacher | None, name: str, judge: Judge, work: Work
) -> Backbone:
    assert work.tuning is not None
    assert work.tuning.whole is not None
    data = judge.data if judge.labels is None else judge.teacher.labelled(judge.data, work.tuning.whole)
    model = build(arch, num_classes=judge.parent.num_classes, seed=work.seed)
    out = work.run(CONTROLS, f"{answer.folder} {name.replace(',', '')}")
    run = fit(model, data, work.tuning.whole, seed=work.seed, out=out, teacher=teacher, progress=work.progress)
    stop_if(run.signal)
    return model
