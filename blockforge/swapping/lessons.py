"""Weights of foreign blocks, and of thinner ones if asked for: each learns what the branch computes in whose place it
stands.

First alone, on the branch's inputs and outputs, which one pass through the network gives for all slots at once; then
inside the network, on its answers (Kullback-Leibler divergence). The network itself does not change. Source of the two
steps: Moons et al., Distilling Optimal Neural Networks (ICCV 2021), section 3.2; Bercovich et al., Puzzle (2024).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Branch
from blockforge.compiler.lowering.outputs import main_output
from blockforge.console.progress import Advance, counting
from blockforge.errors import RunError
from blockforge.files import make_folder
from blockforge.swapping.shared import in_turns
from blockforge.swapping.slots import Alternative
from blockforge.swapping.weights import Kept, new_branch, replaced, tensors_of
from blockforge.train.data import Data, digest_of
from blockforge.train.distill import divergence
from blockforge.train.evaluate import reading
from blockforge.weights.tensor_files import save_tensors
from blockforge.weights.transplant import last_computed

FOLDER = "library"
OWN_LR = 2e-4
"""Of branches whose weights are some of the network's own: they have not far to go."""
TOGETHER = 32
"""Branches that learn in one pass; their files are written after it."""
START = 0.1
"""Size of what a new branch adds at first, in sizes of what the old one adds."""

_LEAST = 1e-12

Images = Callable[[], Iterator[Tensor]]
"""Gives batches as the network takes them, without end, the same each time."""


@dataclass(frozen=True)
class Lessons:
    """How branches learn.

    Attributes:
        alone, inside: steps of each.
        batch_size, lr: of both; the rate falls to zero linearly.
        seed: of the first weights and the order of the images.
    """

    alone: int = 80
    inside: int = 20
    batch_size: int = 64
    lr: float = 2e-3
    seed: int = 0


def distilled(
    model: Backbone,
    alternatives: Sequence[Alternative],
    images: Images,
    lessons: Lessons,
    folder: Path | None,
    run: Mapping[str, Any],
    progress: bool = False,
    kept: Kept | None = None,
) -> dict[Alternative, Mapping[str, Tensor]]:
    """The tensors of each branch: read from `folder` where they are there, else learnt and put there.

    Args:
        model: is in inference mode.
        kept: where those of thinner branches come from, before they learn.
        run: what the weights depend on beside the alternatives and the lessons.
    Raises: OutputError; RunError for a file that cannot be read.
    """
    files = {a: _file(folder, a, run) for a in alternatives} if folder is not None else {}
    known: dict[Alternative, Mapping[str, Tensor]] = {}
    parts = [alternatives[i : i + TOGETHER] for i in range(0, len(alternatives), TOGETHER)]
    if folder is not None:
        make_folder(folder / FOLDER)
    with _frozen(model), counting("steps of branches", len(alternatives) * _steps(lessons), progress) as advance:
        for part in in_turns(parts, folder, FOLDER):
            known |= {a: _read(files[a]) for a in part if a in files and files[a].exists()}
            advance(_steps(lessons) * sum(a in known for a in part))
            branches = {a: _begun(model, a, lessons, kept or {}) for a in part if a not in known}
            learners = {a: b for a, b in branches.items() if next(b.parameters(), None) is not None}  # pooling has none
            if learners:
                _learn_alone(model, learners, images(), lessons, advance)
                _learn_inside(model, learners, images, lessons, advance)
            advance(_steps(lessons) * (len(branches) - len(learners)))
            for alternative, branch in branches.items():
                known[alternative] = branch.state_dict()
                if alternative in files:
                    save_tensors(branch.state_dict(), files[alternative], {"format": "pt"})
    return {a: known[a] for a in alternatives}


def _begun(model: Backbone, alternative: Alternative, lessons: Lessons, kept: Kept) -> Branch:
    """The branch with first weights that do not depend on what else learns beside it."""
    torch.manual_seed(lessons.seed)
    branch = new_branch(model, alternative)
    if not alternative.is_foreign:
        branch.load_state_dict(tensors_of(model, alternative, kept))
    return branch


def training_images(
    network: Backbone, data: Data, weights: str | os.PathLike[str] | None, batch_size: int, seed: int
) -> Images:
    """Training images without end, in an order that `seed` decides; labels are not looked at."""
    split = data.part("train")
    want, normalize = reading(network, data, weights, None, max(1, min(batch_size, len(split))))

    def images() -> Iterator[Tensor]:
        for epoch in itertools.count():
            shuffled = dataclasses.replace(want, shuffle=True, seed=seed, epoch=epoch)
            yield from (normalize(x) for x, _ in split.batches(shuffled))

    return images


def _steps(lessons: Lessons) -> int:
    return lessons.alone + lessons.inside


def _file(folder: Path, alternative: Alternative, run: Mapping[str, Any]) -> Path:
    """Where an alternative's tensors lie: one name for each set of things that they depend on."""
    said = alternative.slot.name, alternative.mark or alternative.label, json.dumps(run, sort_keys=True)
    return folder / FOLDER / f"{digest_of(*said)}.safetensors"


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as e:
        raise RunError(f"{file} cannot be read: {e}\n  hint: remove it, and it is made anew") from None


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """A network whose parameters need no gradients, for as long as the context lasts."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needs in before.items():
            parameter.requires_grad_(needs)


def _learn_alone(
    model: Backbone, branches: Mapping[Alternative, Branch], images: Iterator[Tensor], lessons: Lessons, tell: Advance
) -> None:
    """Bring what each branch gives near to what the network's own gives, as a share of what that adds."""
    names = {a.slot.name for a in branches}
    optimizer, schedule = _optimizer([p for b in branches.values() for p in b.parameters()], lessons, lessons.alone)
    for step in range(lessons.alone):
        seen = seen_by(model, names, next(images))
        if step == 0:
            for alternative, branch in ((a, b) for a, b in branches.items() if a.is_foreign):
                _scale_down(branch, *seen[alternative.slot.name])
        for alternative, branch in branches.items():
            args, y = seen[alternative.slot.name]
            size = _added(branch, args, y).square().mean().clamp(min=_LEAST)
            ((_training(branch)(*args) - y).square().mean() / size).backward()
        _step(optimizer, schedule)
        tell(len(branches))


def _learn_inside(
    model: Backbone, branches: Mapping[Alternative, Branch], images: Images, lessons: Lessons, tell: Advance
) -> None:
    """Bring the network's answers with each branch alone in its slot near to what they were."""
    place = next(model.parameters()).device
    batches = [x.to(place) for x in itertools.islice(images(), lessons.inside)]
    with torch.no_grad():
        teacher = [main_output(model(x)).float() for x in batches]
    for alternative, branch in branches.items():
        layer, name = alternative.slot.name.rsplit(".", 1)
        optimizer, schedule = _optimizer([*branch.parameters()], lessons, lessons.inside)
        with replaced(model.get_submodule(layer), name, _training(branch)):
            for x, answer in zip(batches, teacher, strict=True):
                divergence(main_output(model(x)).float(), answer, 1.0).backward()
                _step(optimizer, schedule)
                tell(1)
        branch.eval()


def _optimizer(parameters: list[nn.Parameter], lessons: Lessons, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=lessons.lr, weight_decay=0.0)
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(1, steps))


def _step(optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()


def _training(branch: Branch) -> Branch:
    """The branch as it learns: norms take statistics, and nothing is dropped."""
    for module in branch.train().modules():
        if "drop" in type(module).__name__.lower():
            module.eval()
    return branch


@torch.no_grad()
def seen_by(model: Backbone, names: set[str], x: Tensor) -> dict[str, tuple[tuple[Any, ...], Tensor]]:
    """What the branches of these names read and give."""
    seen: dict[str, tuple[tuple[Any, ...], Tensor]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            seen[name] = args, output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(noting(name)) for name in names]
    try:
        model(x.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _added(branch: Branch, args: tuple[Any, ...], y: Tensor) -> Tensor:
    """What a branch adds to the map that it reads; without an identity path, all that it gives."""
    return y - args[0] if branch.skip and y.shape == args[0].shape else y


@torch.no_grad()
def _scale_down(branch: Branch, args: tuple[Any, ...], y: Tensor) -> None:
    """Make what a new branch adds small beside what the old one does, in the layer that it computes last: with usual
    first weights it is many times as large, and a network does not recover from that."""
    result: list[Tensor] = []
    last = last_computed({"op": branch.op}, lambda: result.append(_training(branch)(*args)))
    size, wanted = (float(_added(branch, args, z).square().mean().sqrt()) for z in (result[0], y))
    if "op" in last and size > 0 and (share := START * wanted / size) < 1:
        for parameter in last["op"].parameters():
            parameter.mul_(share)
