"""How the images of a step are shared out, and whether a network can be trained on so few."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import DataError, RunError
from blockforge.notes import note
from blockforge.train.data import Data
from blockforge.train.recipe import Recipe


@dataclass(frozen=True)
class Batches:
    """The batches of a run.

    Attributes:
        size: images of a step on each process.
        pieces: parts that these are cut into, alike to one image.
        steps: of an epoch; images beyond the last whole batch wait for the next epoch's order.
    """

    size: int
    pieces: int
    steps: int

    @property
    def smallest(self) -> int:
        """Images that a forward pass sees at least."""
        return self.size // self.pieces


def plan_batches(recipe: Recipe, data: Data, world: int) -> Batches:
    """The batches of a recipe on a data set, for `world` processes.

    Raises: DataError if there are fewer images than processes, RunError if a batch has.
    """
    images = len(data.train)
    if images < world:
        raise DataError(f"{data.name} has {images} images to train on, fewer than there are processes ({world})")
    if recipe.batch_size < world:
        hint = f"--recipe-set batch_size={world}, or more"
        raise RunError(f"a batch of {recipe.batch_size} cannot be shared out among {world} processes\n  hint: {hint}")
    size = min(recipe.batch_size, images) // world
    return Batches(size, min(recipe.accumulate, size), images // (size * world))


def tell_batches(batches: Batches, recipe: Recipe, data: Data, world: int) -> None:
    """Say where a step is not what the recipe says."""
    if (whole := batches.size * world) != recipe.batch_size:
        few = len(data.train) < recipe.batch_size
        why = f"{data.name} has no more" if few else f"{world} processes share it evenly"
        note(f"a batch has {whole} images, not {recipe.batch_size}: {why}")


def check_batches(network: Backbone, batches: Batches) -> None:
    """Refuse a step whose images are too few for the network's norms: a BatchNorm that sees one image on a map of
    1x1 has one value a channel, and no variance.

    Raises: RunError.
    """
    if batches.smallest > 1:
        return
    size = network.arch.plan.input
    try:
        _forward(copy.deepcopy(network), torch.zeros(1, size.channels, *size.size))
    except _OneValueError as e:
        parts = f" (a batch of {batches.size} in {batches.pieces} parts)" if batches.pieces > 1 else ""
        raise RunError(
            f"{network.arch.name} cannot be trained with {batches.smallest} image a step{parts}: {e} has one value a "
            f"channel there, and needs two\n  hint: --recipe-set batch_size={2 * batches.pieces}, or more; fewer parts "
            "(accumulate); a larger image (--set input.size), whose last map has more positions"
        ) from None


class _OneValueError(Exception):
    """A norm that sees one value; its name."""


def _forward(network: Backbone, x_BCHW: torch.Tensor) -> None:
    """One training pass. Raises: _OneValueError."""
    entered = [""]

    def hook(name: str, module: nn.Module) -> None:
        def enter(*_: object) -> None:
            entered[0] = f"{name} ({type(module).__name__})"

        module.register_forward_pre_hook(enter)

    for name, module in network.named_modules():
        hook(name, module)
    place = next(network.parameters())
    with torch.no_grad():
        try:
            network.train()(x_BCHW.to(place))
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):
                raise
            raise _OneValueError(entered[0]) from None
