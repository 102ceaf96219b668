"""The relative receptive field of attention: how far each layer looks, relative to how far it could.

The measure of UViT (Chen et al., ECCV 2022, https://arxiv.org/abs/2112.09747, section 3.2), with distances on the map
in place of distances in the sequence. SMT (ICCV 2023, https://arxiv.org/abs/2307.08579, section 3.3) argues with such a
curve that layers turn from local to global.

Letters: B images, S tiles of a stage's windows, T tiles of a layer's own, N heads, L positions of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.analyze.record import Grid, Place, place_of, reading
from blockforge.analyze.zoo_lookup import nowhere
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError


@dataclass(frozen=True)
class Reach:
    """How far an attention layer looks.

    Attributes:
        node, stage, layer: which one; `layer` counts through all stages.
        relative: mean over queries, images and heads of the mean distance to what is read, over the distance to the
            farthest position of the map. 0: only itself.
        spread: standard deviation of the heads' means.
        uniform: what attention that reads the whole map evenly would have.
        pixels: mean distance in pixels of the image.
    """

    node: str
    stage: int
    layer: int
    relative: float
    spread: float
    uniform: float
    pixels: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Sum:
    """Of each head over images and queries: relative distances, distances, queries."""

    relative: Tensor
    distance: Tensor
    queries: int


def relative_receptive_fields(
    model: Backbone, batches: Sequence[Tensor], *, advance: Callable[[], None] = lambda: None
) -> list[Reach]:
    """The reach of every module that exposes `attention_weights(x_BHWC)`, see `blocks.mixers.attention`.

    Layers whose map is 1x1 look nowhere and are left out.

    Raises: AnalysisError if there is none.
    """
    modules = {name: m for name, m in model.named_modules() if has_attention(m)}
    if not modules:
        raise AnalysisError(nowhere(model.arch.name, "attention", has_attention))
    places = {name: place_of(model.arch, name) for name in modules}
    modules = {name: m for name, m in modules.items() if places[name].grid.height * places[name].grid.width > 1}
    if not modules:
        text = f"every attention layer of {model.arch.name} is on a map of 1x1: it looks nowhere"
        raise AnalysisError(f"{text}\n  hint: a larger image: --set input.size=...")
    sums: dict[str, _Sum] = {}
    images = 0

    def see(name: str, module: Any, x: Tensor) -> None:
        weights, positions = module.attention_weights(x)
        _add(sums, name, _reach(weights, positions, places[name], images))

    with torch.no_grad(), reading(modules, see):
        for batch in batches:
            images = len(batch)
            model(batch)
            advance()
    return [_summed(model, places[name], layer_sum) for name, layer_sum in sums.items()]


def _add(sums: dict[str, _Sum], name: str, new: _Sum) -> None:
    old = sums.setdefault(name, _Sum(torch.zeros_like(new.relative), torch.zeros_like(new.distance), 0))
    old.relative += new.relative
    old.distance += new.distance
    old.queries += new.queries


def _reach(weights: Tensor, positions_TL2: Tensor, place: Place, images: int) -> _Sum:
    """Sums over a batch. What is no position of the map (padding, a class token) neither asks nor is read."""
    rows, columns = positions_on_map(positions_TL2, place)
    laid = place.grid
    inside = (rows >= 0) & (columns >= 0) & (rows < laid.height) & (columns < laid.width)
    there = (positions_TL2 >= 0).all(-1)
    inside_STL = inside & there
    distance_STLL = torch.hypot(*((t[..., :, None] - t[..., None, :]).float() for t in (rows, columns)))
    read = weights.unflatten(0, (images, *inside_STL.shape[:2])) * inside_STL[:, :, None, None, :]
    read = read / read.sum(-1, keepdim=True).clamp_min(1e-12)
    mean_BSTNL = torch.einsum("bstnij,stij->bstni", read, distance_STLL) * inside_STL[:, :, None, :]
    relative = mean_BSTNL / farthest(rows, columns, laid)[:, :, None, :]
    others = (0, 1, 2, 4)
    return _Sum(relative.double().sum(others), mean_BSTNL.double().sum(others), images * int(inside_STL.sum()))


def positions_on_map(positions_TL2: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """Row and column of each position on the stage's map: two of (S, T, L)."""
    rows, columns = place.grid.place(*positions_TL2.unbind(-1))
    if place.window is None:
        return rows[None], columns[None]
    across = -(-place.grid.width // place.window)
    tile = torch.arange(place.tiles, device=rows.device)
    down = torch.div(tile, across, rounding_mode="floor") * place.window
    right = tile % across * place.window
    return rows + down[:, None, None], columns + right[:, None, None]


def farthest(rows: Tensor, columns: Tensor, laid: Grid) -> Tensor:
    """The distance from each position to the farthest one of the map: a corner."""
    down, right = torch.maximum(rows, laid.height - 1 - rows), torch.maximum(columns, laid.width - 1 - columns)
    return torch.hypot(down.float(), right.float()).clamp_min(1.0)


def uniform_reach(laid: Grid) -> float:
    """The relative receptive field of attention that reads every position of the map alike."""
    places = torch.cartesian_prod(torch.arange(laid.height), torch.arange(laid.width)).view(-1, 2).double()
    return float((torch.cdist(places, places).mean(1) / farthest(places[:, 0], places[:, 1], laid)).mean())


def _summed(model: Backbone, place: Place, layer_sum: _Sum) -> Reach:
    node = place.node
    assert node.stage is not None
    assert node.layer is not None
    before = sum(len(stage.layers) for stage in model.arch.stages[: node.stage])
    heads = layer_sum.relative / layer_sum.queries
    stride = math.sqrt(math.prod(model.arch.plan.input.size) / (place.grid.height * place.grid.width))
    return Reach(
        node.name, node.stage, before + node.layer, float(heads.mean()), float(heads.std(correction=0)),
        uniform_reach(place.grid), float((layer_sum.distance / layer_sum.queries).mean()) * stride,
    )  # fmt: skip


def has_attention(module: nn.Module) -> bool:
    """Whether a module exposes its attention weights."""
    return hasattr(module, "attention_weights")
